//! What the chores need from the distribution's packages, and how it gets onto this machine: apt-get
//! when the developer is root or has passwordless sudo, otherwise the one line to type.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::command;
use crate::progress::Step;

/// What packages are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `cargo xtask image`: kernel, root file systems, data disk.
    Image,
    /// Running Testudo: the emulating engine and the network's user-mode end.
    Product,
    /// The end-to-end suite: networks and namespaces of its own.
    Test,
    /// Figures of devices: their peers, and what packs a guest.
    Devices,
    /// Tests and figures of windows: compositors and programs for them.
    Windows,
}

impl Purpose {
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Image => &[
                "bc",
                "binutils",
                "bison",
                "busybox-static",
                "ca-certificates",
                "debian-archive-keyring",
                "flex",
                "gcc",
                "gpgv",
                "libc6-dev",
                "libelf-dev",
                "make",
                "mmdebstrap",
                "patch",
                "perl",
                "tar",
                "uidmap",
                "util-linux",
                "xz-utils",
                "zstd",
            ],
            Self::Product => &["passt", "qemu-system-x86"],
            Self::Test => &[
                "acpica-tools",
                "git",
                "iproute2",
                "qemu-utils",
                "systemd",
                "util-linux",
            ],
            Self::Devices => &[
                "busybox-static",
                "erofs-utils",
                "iproute2",
                "qemu-system-common",
                "util-linux",
            ],
            Self::Windows => &[
                "featherpad",
                "fonts-dejavu-core",
                "foot",
                "grim",
                "gtk-3-examples",
                "gtk-4-examples",
                "libsdl2-tests",
                "qtwayland5",
                "sway",
                "wayland-utils",
                "waypipe",
                "weston",
                "wl-clipboard",
                "wtype",
                "x11-apps",
                "xclip",
                "xterm",
                "xwayland",
            ],
        }
    }
}

/// Makes sure that every package of `purposes` is installed.
///
/// # Errors
/// When some are missing and this user may not install them: the error is the line to type.
pub(crate) fn ensure(purposes: &[Purpose]) -> Result<()> {
    let wanted: BTreeSet<&str> = purposes
        .iter()
        .flat_map(|purpose| purpose.packages())
        .copied()
        .collect();
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    let Some(prefix) = root_prefix() else {
        bail!(
            "packages are missing; install them with:\n\n  {}\n",
            line_to_type(&missing)
        );
    };
    let step = Step::start(
        &format!("installing packages: {}", missing.join(" ")),
        Duration::from_secs(30),
    );
    let log = std::env::temp_dir().join(format!("testudo-apt-{}.log", std::process::id()));
    for mut arguments in [vec!["update", "-q"], {
        let mut install = vec!["install", "-y", "-q", "--no-install-recommends"];
        install.extend(&missing);
        install
    }] {
        let mut words = prefix.to_vec();
        // Another apt-get may be at work on this machine; wait for it as people would.
        words.extend([
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "-o",
            "DPkg::Lock::Timeout=300",
        ]);
        words.append(&mut arguments);
        command::run(Command::new(words[0]).args(&words[1..]), &log, &step)?;
    }
    step.done();
    Ok(())
}

/// Returns those of `wanted` that dpkg does not list as installed.
fn missing<'a>(wanted: &BTreeSet<&'a str>) -> Result<Vec<&'a str>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"])
        .args(wanted)
        .output();
    let Ok(output) = output else {
        bail!("dpkg-query is not here: the chores need Debian, or a distribution made from it");
    };
    // dpkg-query exits with 1 when it knows nothing of a package: that is an answer too.
    let answer = String::from_utf8_lossy(&output.stdout);
    Ok(absent(wanted, &answer))
}

fn absent<'a>(wanted: &BTreeSet<&'a str>, answer: &str) -> Vec<&'a str> {
    let is_installed = |name: &str| {
        answer
            .lines()
            .any(|line| line.strip_prefix("installed ") == Some(name))
    };
    wanted
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect()
}

/// Returns the words that make a command run as root, or nothing when this user may not.
fn root_prefix() -> Option<&'static [&'static str]> {
    if rustix::process::geteuid().is_root() {
        return Some(&[]);
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).output();
    sudo.is_ok_and(|output| output.status.success())
        .then_some(&["sudo", "-n"])
}

fn line_to_type(missing: &[&str]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends {}",
        missing.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_and_unknown_packages_are_absent() {
        let wanted = BTreeSet::from(["bc", "flex", "make"]);
        let answer = "installed bc\nconfig-files flex\n";
        assert_eq!(absent(&wanted, answer), ["flex", "make"]);
    }

    #[test]
    fn the_line_to_type_names_every_missing_package() {
        assert!(line_to_type(&["bc", "flex"]).ends_with("--no-install-recommends bc flex"));
    }
}
