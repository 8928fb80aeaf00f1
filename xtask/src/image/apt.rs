//! A private apt: its own sources, lists and empty dpkg status, so that an ordinary user can resolve
//! and download packages of [`SUITE`](super::sources::SUITE) on a machine of another release. apt
//! checks every signature and hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::key::sha256_of;
use super::sources::{Sources, fields};
use crate::command;
use crate::progress::Step;

/// The keyring that `debian-archive-keyring` installs.
const MACHINE_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A key file that only packages new enough for trixie have.
const SUITE_KEY: &str = "/usr/share/keyrings/debian-archive-trixie-stable.gpg";

/// One package of the distribution, exactly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Package {
    /// Binary package name.
    pub(super) name: String,
    /// Debian version with epoch.
    pub(super) version: String,
    /// `amd64` or `all`.
    pub(super) architecture: String,
    /// SHA-256 of the .deb, as the signed index has it.
    pub(super) sha256: String,
}

impl Package {
    /// Returns the file name that `apt-get download` gives the package.
    pub(super) fn file_name(&self) -> String {
        let version = self.version.replace(':', "%3a");
        format!("{}_{version}_{}.deb", self.name, self.architecture)
    }
}

/// The private apt, in a folder of its own.
pub(super) struct Apt {
    root: PathBuf,
    config: PathBuf,
    keyring: PathBuf,
    sources: String,
}

impl Apt {
    /// Writes the configuration for `sources` under `root`.
    ///
    /// # Errors
    /// When `root` cannot be written, or no keyring with the suite's keys can be had.
    pub(super) fn prepare(root: &Path, sources: &Sources) -> Result<Self> {
        let keyring = keyring(&root.join("keyring"))?;
        let apt = Self {
            root: root.to_owned(),
            config: root.join("apt.conf"),
            sources: sources.deb822(&keyring),
            keyring,
        };
        for folder in [
            "etc/preferences.d",
            "etc/apt.conf.d",
            "state/lists/partial",
            "cache/archives/partial",
            "debs",
        ] {
            fs::create_dir_all(root.join(folder)).context("cannot make apt's private folders")?;
        }
        fs::write(root.join("status"), "").context("cannot write dpkg status")?;
        let parts = root.join("etc/sources.list.d");
        fs::create_dir_all(&parts).context("cannot make sources.list.d")?;
        fs::write(parts.join("image.sources"), &apt.sources).context("cannot write sources")?;
        fs::write(&apt.config, apt.configuration(sources)).context("cannot write apt.conf")?;
        Ok(apt)
    }

    fn configuration(&self, sources: &Sources) -> String {
        let root = self.root.display();
        let mut text = format!(
            "Dir \"{root}/\";\n\
             Dir::State \"{root}/state/\";\n\
             Dir::State::status \"{root}/status\";\n\
             Dir::Cache \"{root}/cache/\";\n\
             Dir::Etc \"{root}/etc/\";\n\
             Dir::Etc::netrc \"/etc/apt/auth.conf\";\n\
             Dir::Etc::netrcparts \"/etc/apt/auth.conf.d/\";\n\
             APT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; }};\n\
             APT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::Retries \"3\";\n"
        );
        for (name, value) in &sources.proxies {
            text.push_str(&format!("{name} \"{value}\";\n"));
        }
        text
    }

    /// Returns the keyring that holds the suite's keys.
    pub(super) fn keyring(&self) -> &Path {
        &self.keyring
    }

    /// Returns the sources in use.
    pub(super) fn sources(&self) -> &str {
        &self.sources
    }

    /// Downloads the package indexes and checks their signatures.
    ///
    /// # Errors
    /// When a mirror cannot be reached or a signature is not the archive's.
    pub(super) fn update(&self, log: &Path, step: &Step) -> Result<()> {
        // Without this option apt-get takes a failed mirror for a warning.
        let mut update = self.command("apt-get");
        update.args(["update", "-o", "APT::Update::Error-Mode=any"]);
        command::run(&mut update, log, step).context("cannot update the package lists")
    }

    /// Returns `wanted` (names or apt patterns) with all they depend on, sorted by name.
    ///
    /// # Errors
    /// When apt cannot resolve them or its index lacks a hash.
    pub(super) fn resolve(&self, wanted: &[String]) -> Result<Vec<Package>> {
        let mut simulate = self.command("apt-get");
        simulate.args(["install", "--simulate", "-qq"]).args(wanted);
        let names = installed_names(&command::output(&mut simulate)?);
        self.describe(&names)
    }

    /// Returns `names` alone, exactly as the index has their candidates.
    ///
    /// # Errors
    /// When one is unknown.
    pub(super) fn describe(&self, names: &[String]) -> Result<Vec<Package>> {
        let mut show = self.command("apt-cache");
        show.args(["show", "--no-all-versions"]).args(names);
        let mut packages = stanzas(&command::output(&mut show)?)?;
        packages.sort();
        packages.dedup();
        match names
            .iter()
            .find(|name| !packages.iter().any(|package| package.name == **name))
        {
            Some(unknown) => bail!("the package index has no {unknown}"),
            None => Ok(packages),
        }
    }

    /// Downloads `packages` (those not here yet) and returns their files in the same order.
    ///
    /// # Errors
    /// When one cannot be had or its hash is not the one resolved earlier.
    pub(super) fn fetch(
        &self,
        packages: &[Package],
        log: &Path,
        step: &Step,
    ) -> Result<Vec<PathBuf>> {
        let debs = self.root.join("debs");
        let missing: Vec<String> = packages
            .iter()
            .filter(|package| !debs.join(package.file_name()).exists())
            .map(|package| format!("{}={}", package.name, package.version))
            .collect();
        if !missing.is_empty() {
            let mut download = self.command("apt-get");
            download
                .args(["download", "-q"])
                .args(&missing)
                .current_dir(&debs);
            command::run(&mut download, log, step).context("cannot download packages")?;
        }
        packages
            .iter()
            .map(|package| checked(&debs, package))
            .collect()
    }

    /// Returns whether `packages` are all downloaded.
    pub(super) fn has(&self, packages: &[Package]) -> bool {
        let debs = self.root.join("debs");
        packages
            .iter()
            .all(|package| debs.join(package.file_name()).exists())
    }

    /// Removes the downloaded packages that are not among `packages`.
    ///
    /// # Errors
    /// When the folder cannot be cleaned.
    pub(super) fn forget_all_but(&self, packages: &[&Package]) -> Result<()> {
        let names: Vec<String> = packages.iter().map(|package| package.file_name()).collect();
        for entry in fs::read_dir(self.root.join("debs")).context("cannot list packages")? {
            let entry = entry.context("cannot list packages")?;
            if !names.iter().any(|name| entry.file_name() == name.as_str()) {
                fs::remove_file(entry.path()).context("cannot remove an old package")?;
            }
        }
        Ok(())
    }

    /// Returns a command of apt's that sees only the private state.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }
}

fn checked(debs: &Path, package: &Package) -> Result<PathBuf> {
    let path = debs.join(package.file_name());
    let found = sha256_of(&path)?;
    if found != package.sha256 {
        fs::remove_file(&path).context("cannot remove a damaged package")?;
        bail!(
            "{} has hash {found}, not {}",
            path.display(),
            package.sha256
        );
    }
    Ok(path)
}

/// Returns a keyring that holds the suite's keys: the machine's, or, on a machine installed before
/// those keys were made, the one of the newest `debian-archive-keyring` that the machine's own apt
/// downloads and checks with the keys it already trusts.
fn keyring(folder: &Path) -> Result<PathBuf> {
    if Path::new(SUITE_KEY).exists() {
        return Ok(PathBuf::from(MACHINE_KEYRING));
    }
    let unpacked = folder.join("tree");
    let keyring = unpacked.join(MACHINE_KEYRING.trim_start_matches('/'));
    let suite_key = unpacked.join(SUITE_KEY.trim_start_matches('/'));
    if !suite_key.exists() {
        fs::create_dir_all(folder).context("cannot make the keyring's folder")?;
        let mut download = Command::new("apt-get");
        download
            .args(["download", "-q", "debian-archive-keyring"])
            .current_dir(folder);
        command::output(&mut download).context("cannot download the archive's keyring")?;
        for entry in fs::read_dir(folder).context("cannot list the keyring's folder")? {
            let path = entry.context("cannot list the keyring's folder")?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                command::output(
                    Command::new("dpkg-deb")
                        .arg("--extract")
                        .arg(&path)
                        .arg(&unpacked),
                )?;
            }
        }
    }
    if !suite_key.exists() {
        bail!(
            "debian-archive-keyring is older than {}'s keys: run apt-get update",
            super::sources::SUITE
        );
    }
    Ok(keyring)
}

/// Picks the package names out of `apt-get --simulate`'s `Inst` lines.
fn installed_names(simulation: &str) -> Vec<String> {
    let name = |line: &str| {
        line.strip_prefix("Inst ")?
            .split_whitespace()
            .next()
            .map(str::to_owned)
    };
    simulation.lines().filter_map(name).collect()
}

/// Parses the stanzas of `apt-cache show`.
fn stanzas(text: &str) -> Result<Vec<Package>> {
    let lines: Vec<&str> = text.lines().collect();
    let full = lines
        .split(|line| line.trim().is_empty())
        .filter(|stanza| !stanza.is_empty());
    full.map(|stanza| {
        let mut fields = fields(stanza);
        let mut field = |name: &str| {
            fields
                .remove(name)
                .with_context(|| format!("apt-cache shows a package without {name}"))
        };
        Ok(Package {
            name: field("package")?,
            version: field("version")?,
            architecture: field("architecture")?,
            sha256: field("sha256")?,
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulation_lists_what_would_be_installed() {
        let text = "Inst libc6 (2.41-12 Debian:13/stable [amd64])\nInst lxc (1:6.0 x [amd64]) []\nConf libc6 (2.41)\n";
        assert_eq!(installed_names(text), ["libc6", "lxc"]);
    }

    #[test]
    fn epoch_is_escaped_in_the_file_name() {
        let text = "Package: lxc\nVersion: 1:6.0.4-4\nArchitecture: amd64\nDescription: x\n more: y\nSHA256: ab\n\n";
        let packages = stanzas(text).unwrap();
        assert_eq!(packages[0].file_name(), "lxc_1%3a6.0.4-4_amd64.deb");
    }

    #[test]
    fn package_without_hash_is_refused() {
        let error = stanzas("Package: a\nVersion: 1\nArchitecture: all\n").unwrap_err();
        assert!(error.to_string().contains("sha256"), "{error}");
    }
}
