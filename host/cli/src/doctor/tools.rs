//! Programs that VMs need: ours beside this one, and the distribution's in `PATH`.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use link::places::sibling;

use super::packages::Package;
use super::{Finding, Patient};

/// Ours, and what cannot be done without them.
const OURS: [&str; 3] = ["concierge", "crosvm", "wayland-hostd"];

/// A version's first two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Returns what was found of the programs.
pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    vec![passt(patient), programs()]
}

fn passt(patient: &Patient<'_>) -> Finding {
    let install = patient.system.install(Package::Passt);
    match find("passt") {
        Some(path) => Finding::ok("passt", path.display().to_string()),
        None => Finding::fail(
            "passt",
            "passt is not installed: VMs would have no network",
            install,
        ),
    }
}

fn programs() -> Finding {
    let missing: Vec<_> = OURS
        .into_iter()
        .filter(|name| !sibling(name).is_ok_and(|path| is_executable(&path)))
        .collect();
    if missing.is_empty() {
        return Finding::ok("programs", OURS.join(", "));
    }
    Finding::fail(
        "programs",
        format!("not beside this program: {}", missing.join(", ")),
        "install again: cargo xtask up",
    )
}

/// Returns the first executable `name` in `PATH`.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Returns the version that `program --version` says in its first line.
pub(super) fn version(program: &Path) -> Option<Version> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(text: &str) -> Option<Version> {
    let words = text.lines().next()?.split_whitespace();
    words.into_iter().find_map(|word| {
        let mut numbers = word.split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?;
        let digits = minor.bytes().take_while(u8::is_ascii_digit).count();
        Some(Version(major, minor[..digits].parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_the_first_line() {
        let qemu =
            "QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7+deb12u15)\nCopyright 2003.1\n";
        assert_eq!(parse(qemu), Some(Version(7, 2)));
        assert_eq!(parse("v10.0rc1 10.1rc2"), Some(Version(10, 1)));
        assert_eq!(parse("no numbers"), None);
        assert!(Version(6, 10) < Version(7, 2));
    }
}
