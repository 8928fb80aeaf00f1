//! Builds the programs that run on the host and in the container, optimised and static.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::progress::Step;
use crate::workspace::{TRIPLE, root, target};
use crate::{command, workspace};

/// The packages whose programs a user's installation consists of.
pub(crate) const PACKAGES: &[&str] = &["testudo", "concierge", "crosvm", "wayland-hostd"];

/// The programs of [`PACKAGES`].
pub(crate) const PROGRAMS: &[&str] = &["testudo", "concierge", "crosvm", "wayland-hostd"];

/// The other names of `testudo`.
pub(crate) const NAMES: &[&str] = &["vmc", "vsh", "crosh"];

/// On two cores, from nothing.
const ABOUT: Duration = Duration::from_secs(420);

/// Builds what a user installs and returns the folder of the programs.
///
/// # Errors
/// When cargo fails; its last lines are in the error.
pub(crate) fn programs() -> Result<PathBuf> {
    let step = Step::start("building the programs", ABOUT);
    let mut cargo = cargo("build");
    cargo.arg("--release");
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    command::run(&mut cargo, &workspace::log("build")?, &step)?;
    step.done();
    Ok(target()?.join(TRIPLE).join("release"))
}

/// Returns a call of the cargo that runs this chore, in the workspace's root.
pub(crate) fn cargo(verb: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(verb).current_dir(root());
    command
}
