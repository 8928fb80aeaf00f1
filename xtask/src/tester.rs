//! Who runs the end-to-end suite: an ordinary user, because the product is for ordinary users. Root makes one for it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::progress::line;
use crate::{command, workspace};

/// The user that root makes.
const NAME: &str = "testudo-test";

/// Where Debian's programs are; sbin has those that only root had before.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Names a folder that the user for the tests can write, in which suites keep pictures of screens for people.
const PICTURES: &str = "TESTUDO_PICTURES";

/// How many ids below a user a container may want.
const SUBORDINATE_IDS: u32 = 65_536;

/// Files of subordinate ids, and usermod's option for each.
const SUBORDINATE: [(&str, &str); 2] = [
    ("/etc/subuid", "--add-subuids"),
    ("/etc/subgid", "--add-subgids"),
];

/// The user that the suite runs as.
pub(crate) enum Tester {
    /// Whoever runs this.
    Me,
    /// A user made for it, and where its copies of programs and image lie.
    Made { folder: PathBuf },
}

impl Tester {
    /// Returns this user, or as root a user made for it.
    ///
    /// # Errors
    /// When root cannot make it.
    pub(crate) fn find() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Me);
        }
        if command::output(Command::new("id").args(["--user", NAME])).is_err() {
            command::output(Command::new("useradd").args([
                "--create-home",
                "--shell",
                "/bin/bash",
                NAME,
            ]))
            .context("cannot make the user for the tests")?;
        }
        for (file, option) in SUBORDINATE {
            give_subordinate_ids(file, option)?;
        }
        let passwd = command::output(Command::new("getent").args(["passwd", NAME]))?;
        let home = passwd
            .split(':')
            .nth(5)
            .context("the user for the tests has no home")?;
        Ok(Self::Made {
            folder: Path::new(home).join(format!("suite-{}", of_checkout(workspace::root()))),
        })
    }

    /// Returns a path with the content of `from`, file or folder, that the tester can read; `name` says where it goes
    /// when it has to be copied, because the checkout may lie where the tester cannot go.
    ///
    /// # Errors
    /// When copying fails.
    pub(crate) fn share(&self, from: &Path, name: &str) -> Result<PathBuf> {
        let Self::Made { folder } = self else {
            return Ok(from.to_owned());
        };
        let to = folder.join(name);
        let parent = to.parent().context("a shared file lies in a folder")?;
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
        command::output(
            Command::new("cp")
                .args([
                    "--recursive",
                    "--sparse=always",
                    "--reflink=auto",
                    "--update",
                    // A program that still runs can be replaced, not overwritten.
                    "--remove-destination",
                    "--no-target-directory",
                ])
                .arg("--preserve=timestamps,mode")
                .arg(from)
                .arg(&to),
        )
        .with_context(|| format!("cannot copy {} for the tests", from.display()))?;
        // With its colon, the user's own group too: the suite is not to run with root's.
        command::output(
            Command::new("chown")
                .args(["--recursive", &format!("{NAME}:")])
                .arg(folder),
        )?;
        Ok(to)
    }

    /// Returns `program` to be run by the tester, from a folder that it owns.
    ///
    /// # Errors
    /// When the folder cannot be looked at.
    pub(crate) fn command(&self, program: &Path) -> Result<Command> {
        let Self::Made { folder } = self else {
            return Ok(Command::new(program));
        };
        let owner = std::fs::metadata(folder).context("nothing was shared with the tester")?;
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", owner.uid()))
            .arg(format!("--regid={}", owner.gid()));
        command
            .args(["--init-groups", "--inh-caps=-all"])
            .arg(program)
            .current_dir(folder);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .env("USER", NAME);
        if let Some(folder) = std::env::var_os(PICTURES) {
            command.env(PICTURES, folder);
        }
        command.env("HOME", folder.parent().unwrap_or(folder));
        Ok(command)
    }
}

/// Returns a short name for `checkout`, so that two of them on one machine don't share copies.
fn of_checkout(checkout: &Path) -> String {
    let digest = Sha256::digest(checkout.as_os_str().as_encoded_bytes());
    digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What a suite's programs are given.
pub(crate) struct Suite<'a> {
    /// How it is called in what is said.
    pub(crate) name: &'a str,
    /// Where the tester's copies of its programs go.
    pub(crate) folder: &'a str,
    /// Arguments of each program.
    pub(crate) arguments: Vec<&'a str>,
    /// Variables of each program.
    pub(crate) environment: &'a [(&'a str, &'a Path)],
}

impl Suite<'_> {
    /// Has `tester` run the programs one after the other; which of them failed is said and in the exit code.
    ///
    /// # Errors
    /// When one cannot be copied or started.
    pub(crate) fn run(&self, tester: &Tester, programs: &[(String, PathBuf)]) -> Result<ExitCode> {
        let mut failed = Vec::new();
        for (name, program) in programs {
            line(&format!("{}: {name}", self.name));
            let program = tester.share(program, &format!("{}/{name}", self.folder))?;
            let status = tester
                .command(&program)?
                .args(&self.arguments)
                .envs(self.environment.iter().copied())
                .stdin(Stdio::null())
                .status()
                .with_context(|| format!("cannot start {}", program.display()))?;
            if !status.success() {
                failed.push(name.as_str());
            }
        }
        if failed.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        line(&format!("{}: failed: {}", self.name, failed.join(", ")));
        Ok(ExitCode::FAILURE)
    }
}

/// Gives the user a range of `file` of its own if it has none.
fn give_subordinate_ids(file: &str, option: &str) -> Result<()> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    if text
        .lines()
        .any(|line| line.starts_with(&format!("{NAME}:")))
    {
        return Ok(());
    }
    let first = free_range(&text);
    let range = format!("{first}-{}", first + SUBORDINATE_IDS - 1);
    command::output(Command::new("usermod").args([option, &range, NAME]))
        .with_context(|| format!("cannot give the tests' user ids in {file}"))?;
    Ok(())
}

/// Returns the first id after all ranges in the text of a subordinate-id file.
fn free_range(text: &str) -> u32 {
    let end = |line: &str| -> Option<u32> {
        let mut fields = line.split(':').skip(1);
        let first: u32 = fields.next()?.parse().ok()?;
        first.checked_add(fields.next()?.parse().ok()?)
    };
    // login.defs starts at 100,000 everywhere.
    text.lines()
        .filter_map(end)
        .max()
        .unwrap_or_default()
        .max(100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkouts_have_names_of_their_own() {
        let name = of_checkout(Path::new("/a"));
        assert_eq!(name, of_checkout(Path::new("/a")));
        assert_ne!(name, of_checkout(Path::new("/b")));
        assert_eq!(name.len(), 8);
    }

    #[test]
    fn a_new_range_follows_all_others() {
        assert_eq!(free_range(""), 100_000);
        assert_eq!(
            free_range("a:100000:65536\nb:231072:65536\nbroken\nc:165536:65536\n"),
            296_608
        );
    }
}
