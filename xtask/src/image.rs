//! `cargo xtask image`: builds Termina (kernel, read-only root, data-disk template, extras) from the
//! distribution's packages and installs it into one folder. Every step is cached outside the checkout
//! by a hash of its inputs; with nothing changed this does nothing.
//!
//! ```text
//! lock ─┬─ kernel ───────────────────────────── vmlinux
//!       ├─ tools ──┬─────────┬──────────┐
//!       ├─ tree ───┼─ root ──┼──────────┼────── root.erofs   (+ maitred, sommelier)
//!       │    └─────┼─────────┼─ extras ─┼────── incus.erofs
//!       └─ base ───┴─────────┴── data ──┴────── data.btrfs
//! ```

mod apt;
mod container;
mod debian_kernel;
mod disk;
mod extras;
mod inventory;
mod kernel;
mod key;
mod list;
mod lock;
mod manifest;
mod namespace;
mod places;
mod plan;
mod root;
mod sources;
mod store;
mod thin;
mod tools;
mod tree;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::packages::{self, Purpose};
use crate::progress::{self, Step};
use crate::{build, command, workspace};
use places::Places;
use plan::Plan;
use sources::Sources;

pub(crate) use debian_kernel::{DEBIAN_KERNEL_MARKER, cpio, debian_kernel};

/// The time of every file in the image, in seconds since 1970, and of the kernel's build.
const EPOCH: u64 = 1_700_000_000;

/// Build Termina's image and install it; does nothing when it is current.
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Take the packages from this Debian mirror, not from this machine's apt configuration
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
    /// Ask the mirrors for newer packages first
    #[arg(long)]
    refresh: bool,
    /// Install into this folder [default: $XDG_DATA_HOME/testudo/image]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Use this maitred, not the one of this checkout
    #[arg(long, value_name = "PROGRAM")]
    maitred: Option<PathBuf>,
    /// Use this sommelier, not the one of this checkout
    #[arg(long, value_name = "PROGRAM")]
    sommelier: Option<PathBuf>,
    /// Fetch Debian's cloud kernel too, which `cargo xtask bench` measures against
    #[arg(long)]
    peer: bool,
}

impl Arguments {
    /// Returns the arguments that mean an image in `output`.
    pub(crate) fn to(output: PathBuf) -> Self {
        Self {
            output: Some(output),
            ..Self::default()
        }
    }
}

/// Runs the chore.
///
/// # Errors
/// When a step fails.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let installed = build(arguments)?;
    progress::line(&format!("the image is in {}", installed.display()));
    if arguments.peer {
        let peer = debian_kernel()?;
        let (kernel, initrd) = (peer.kernel.display(), peer.initrd.display());
        progress::line(&format!(
            "the peer's kernel is {kernel}, its initrd {initrd}"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds and installs the image and returns its folder.
///
/// # Errors
/// When a package is missing or a step fails; what was done is not done again by the next call.
pub(crate) fn build(arguments: &Arguments) -> Result<PathBuf> {
    packages::ensure(&[Purpose::Image])?;
    let places = Places::of_user(arguments.output.as_deref())?;
    let built = if arguments.maitred.is_some() && arguments.sommelier.is_some() {
        PathBuf::new()
    } else {
        programs()?
    };
    let program = |given: &Option<PathBuf>, name: &str| match given {
        Some(path) => path.clone(),
        None => built.join(name),
    };
    let maitred = program(&arguments.maitred, "maitred");
    let sommelier = program(&arguments.sommelier, "sommelier");
    let sources = sources(arguments.mirror.as_deref())?;
    let plan = Plan {
        places: &places,
        sources: &sources,
        maitred: &maitred,
        sommelier: &sommelier,
    };
    plan.carry_out(arguments.refresh)?;
    Ok(places.output.clone())
}

/// Compiles the programs that the image carries and returns their folder.
///
/// # Errors
/// When they do not build.
pub(crate) fn programs() -> Result<PathBuf> {
    let step = Step::start("compiling the guest's programs", Duration::from_secs(150));
    let mut cargo = build::cargo("build");
    cargo.args([
        "--release",
        "--package",
        "maitred",
        "--package",
        "sommelier",
    ]);
    command::run(&mut cargo, &workspace::log("guest")?, &step)?;
    step.done();
    Ok(workspace::target()?.join(workspace::TRIPLE).join("release"))
}

/// Returns where packages come from: `mirror`, or what this machine's apt uses.
fn sources(mirror: Option<&str>) -> Result<Sources> {
    let config = command::output(Command::new("apt-config").arg("dump"))?;
    match mirror {
        Some(uri) => Ok(Sources::of_mirror(uri, &config)),
        None => Sources::of_machine(Path::new("/etc/apt"), &codename()?, &config),
    }
}

/// Returns the code name of this machine's release.
fn codename() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name
        .context("/etc/os-release has no code name")?
        .trim_matches('"')
        .to_owned())
}
