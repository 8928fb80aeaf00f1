//! Termina's kernel: the suite's linux-source, the patches and the configuration of image/termina,
//! compiled to an uncompressed vmlinux. An interrupted compilation goes on where it stopped.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::EPOCH;
use super::apt::{Apt, Package};
use super::store::Work;
use crate::command;

/// The package that holds the source, and its archive inside.
pub(super) const SOURCE: &str = "linux-source-6.12";

/// Marks a source tree that is unpacked and patched to the end.
const PREPARED: &str = ".testudo-prepared";

/// Returns what compiled code depends on besides the source: the compiler and the linker.
///
/// # Errors
/// When one is not there.
pub(super) fn toolchain() -> Result<String> {
    let mut text = String::new();
    for program in ["gcc", "ld"] {
        let said = command::output(Command::new(program).arg("--version").env("LC_ALL", "C"))?;
        text.push_str(said.lines().next().unwrap_or_default());
        text.push('\n');
    }
    Ok(text)
}

/// Compiles the kernel of `recipe` (image/termina) and leaves `vmlinux` and its full `config`.
///
/// # Errors
/// When the source cannot be had, a patch does not apply, or an option of the configuration is not
/// taken over by the kernel's own tool.
pub(super) fn build(apt: &Apt, source: &[Package], recipe: &Path, work: &Work<'_>) -> Result<()> {
    let tree = work.folder.join(SOURCE);
    if !tree.join(PREPARED).exists() {
        work.step.detail("unpacking the source");
        let debs = apt.fetch(source, work.log, work.step)?;
        let deb = debs.first().context("no package of the kernel's source")?;
        unpack(deb, work.folder)?;
        patch(&tree, &recipe.join("patches"), work)?;
        fs::write(tree.join(PREPARED), "").context("cannot mark the source as prepared")?;
    }
    let fragment = recipe.join("kernel.config");
    let mut configure = make(&tree);
    configure
        .arg("allnoconfig")
        .env("KCONFIG_ALLCONFIG", &fragment);
    command::run(&mut configure, work.log, work.step)?;
    let asked = fs::read_to_string(&fragment).context("cannot read the kernel's configuration")?;
    let got = fs::read_to_string(tree.join(".config")).context("cannot read .config")?;
    let refused = refused(&asked, &got);
    if !refused.is_empty() {
        bail!(
            "the kernel does not take these options of {}: {}",
            fragment.display(),
            refused.join(" ")
        );
    }
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    command::run(
        make(&tree).arg(format!("-j{jobs}")).arg("vmlinux"),
        work.log,
        work.step,
    )?;
    fs::rename(tree.join("vmlinux"), work.folder.join("vmlinux")).context("cannot take vmlinux")?;
    fs::rename(tree.join(".config"), work.folder.join("config")).context("cannot take .config")?;
    fs::remove_dir_all(&tree).context("cannot remove the source")
}

/// Returns make in `tree`, with everything fixed that would make two builds differ.
fn make(tree: &Path) -> Command {
    let mut command = Command::new("make");
    command
        .arg("--silent")
        .arg("-C")
        .arg(tree)
        .env("LC_ALL", "C")
        .env("KBUILD_BUILD_TIMESTAMP", format!("@{EPOCH}"))
        .env("KBUILD_BUILD_USER", "testudo")
        .env("KBUILD_BUILD_HOST", "termina")
        .env("KBUILD_BUILD_VERSION", "1");
    command
}

/// Unpacks the archive that the source's package holds, without unpacking the package.
fn unpack(deb: &Path, folder: &Path) -> Result<()> {
    let archive = format!("./usr/src/{SOURCE}.tar.xz");
    let mut outer = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let mut inner = Command::new("tar")
        .args(["--extract", "--to-stdout", &archive])
        .stdin(
            outer
                .stdout
                .take()
                .expect("stdout was just asked to be a pipe"),
        )
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start tar")?;
    let source = Command::new("tar")
        .args(["--extract", "--xz", "--directory"])
        .arg(folder)
        .stdin(
            inner
                .stdout
                .take()
                .expect("stdout was just asked to be a pipe"),
        )
        .status()
        .context("cannot start tar")?;
    let statuses = [inner.wait().context("cannot wait for tar")?, source];
    // dpkg-deb may complain of a closed pipe: tar stops reading after the archive it wants.
    outer.wait().context("cannot wait for dpkg-deb")?;
    if statuses.iter().any(|status| !status.success()) {
        bail!("cannot unpack {archive} of {}", deb.display());
    }
    Ok(())
}

fn patch(tree: &Path, patches: &Path, work: &Work<'_>) -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(patches)
        .context("cannot list the kernel's patches")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .context("cannot list the kernel's patches")?;
    files.sort();
    for file in files {
        let mut patch = Command::new("patch");
        patch
            .args(["--strip=1", "--force", "--directory"])
            .arg(tree)
            .arg("--input")
            .arg(&file);
        command::run(&mut patch, work.log, work.step)?;
    }
    Ok(())
}

/// Returns the options that `asked` sets and `got` has otherwise.
fn refused<'a>(asked: &'a str, got: &str) -> Vec<&'a str> {
    let got: std::collections::HashSet<&str> = got.lines().collect();
    let set = |line: &&str| line.starts_with("CONFIG_");
    let mut refused: Vec<&str> = asked
        .lines()
        .filter(set)
        .filter(|line| !got.contains(line))
        .collect();
    let unset = asked
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.strip_suffix(" is not set"));
    refused.extend(unset.filter(|name| got.contains(format!("{name}=y").as_str())));
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_the_kernel_changes_are_reported() {
        let asked =
            "# a comment\nCONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n# CONFIG_D is not set\n";
        let got = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\n";
        assert_eq!(refused(asked, got), ["CONFIG_B=y", "CONFIG_C"]);
    }
}
