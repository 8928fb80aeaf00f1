//! LXD's command line on demand: `incus` (and `lxc`, as people know it) typed in the VM's shell is this program,
//! which brings what is missing and becomes the real client.
//!
//! ```text
//! image on the host ── vsock ── /data/extras/incus.erofs ── mounted ── daemon, /usr laid over by it
//! ```
//! Who never types it has no byte of it on the disk and no process running.

mod daemon;
mod fetch;

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use wire::Fault;

use crate::fault::OrFault;

/// Our own failures; the client's codes are its own.
const FAILED: u8 = 125;

/// Held while one of several first callers brings everything.
const LOCK: &str = "/run/testudo/incus.lock";

/// Where the image is mounted; programs in it are found below.
const IMAGE: &str = "/run/testudo/incus";

/// Brings what is missing and becomes the client; `name` is what the user typed.
pub(crate) fn run(name: &str) -> ExitCode {
    match ready() {
        Ok(()) => {
            let error = Command::new(Path::new(IMAGE).join("usr/bin/incus"))
                .arg0(name)
                .args(std::env::args_os().skip(1))
                .exec();
            complain(&format!("cannot start {name}"), &error);
        }
        Err(fault) => {
            complain(&fault.to_string(), &fault);
            for cause in &fault.parts().causes {
                complain("  because", &Fault::new(fault.kind(), "", cause.clone()));
            }
        }
    }
    ExitCode::from(FAILED)
}

/// Returns when the daemon answers.
fn ready() -> Result<(), Fault> {
    if daemon::answers() {
        return Ok(());
    }
    let message = || "cannot bring Incus".to_owned();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let lock = open(LOCK, flags, Mode::RUSR | Mode::WUSR).or_fault("E-EXTRAS", message)?;
    flock(&lock, FlockOperation::LockExclusive).or_fault("E-EXTRAS", message)?;
    if daemon::answers() {
        return Ok(());
    }
    let image = fetch::image()?;
    daemon::start(&image)
}

pub(crate) use daemon::stop;

#[expect(clippy::print_stderr, reason = "this is a command that people type")]
fn complain(act: &str, error: &(dyn Error + 'static)) {
    eprintln!("error: {act}: {error}");
}
