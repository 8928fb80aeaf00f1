//! What earlier runs have left: sockets that nobody serves, locks that somebody holds without a daemon.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::{Finding, Patient};

/// What stands behind the daemon's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Serves,
    Absent,
}

/// Returns what was found of folders, sockets and locks.
pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let socket = patient.places.socket();
    let (daemon, finding) = match UnixStream::connect(&socket) {
        Ok(_) => (Daemon::Serves, Finding::ok("daemon", "answers")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (
            Daemon::Absent,
            Finding::ok("daemon", "does not run; the next command starts it"),
        ),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => (
            Daemon::Absent,
            Finding::warn(
                "daemon",
                format!(
                    "{} is left from a daemon that was killed; the next one replaces it",
                    socket.display()
                ),
                "testudo list",
            ),
        ),
        Err(error) => (
            Daemon::Absent,
            Finding::fail(
                "daemon",
                format!("{} cannot be reached: {error}", socket.display()),
                format!("rm {}", socket.display()),
            ),
        ),
    };
    vec![runtime(patient), finding, locks(patient, daemon)]
}

fn runtime(patient: &Patient<'_>) -> Finding {
    let folder = patient.places.runtime();
    let uid = rustix::process::getuid().as_raw();
    match folder.symlink_metadata() {
        Ok(found) if !found.is_dir() || found.uid() != uid => Finding::fail(
            "runtime-folder",
            format!("{} does not belong to this user", folder.display()),
            patient
                .system
                .as_root(&format!("rm -r {}", folder.display())),
        ),
        Ok(_) => Finding::ok("runtime-folder", folder.display().to_string()),
        Err(_) if folder.parent().is_some_and(Path::is_dir) => Finding::ok(
            "runtime-folder",
            format!("{} (made when needed)", folder.display()),
        ),
        Err(error) => Finding::fail(
            "runtime-folder",
            format!("{} cannot be made: {error}", folder.display()),
            "unset XDG_RUNTIME_DIR, or log in through a session that makes it",
        ),
    }
}

/// Without a daemon, no lock may be held: one that is belongs to something that was left running.
fn locks(patient: &Patient<'_>, daemon: Daemon) -> Finding {
    if daemon == Daemon::Serves {
        return Finding::ok("locks", "held by the running daemon");
    }
    let vms = std::fs::read_dir(patient.places.vms())
        .into_iter()
        .flatten()
        .flatten();
    let mut candidates = vec![patient.places.lock()];
    candidates.extend(vms.map(|vm| vm.path().join("lock")));
    let held: Vec<_> = candidates
        .iter()
        .filter(|path| is_held(path))
        .map(|path| path.display().to_string())
        .collect();
    if held.is_empty() {
        return Finding::ok("locks", "none is held");
    }
    Finding::fail(
        "locks",
        format!("held although no daemon runs: {}", held.join(", ")),
        format!("see who holds it: fuser -v {}", held[0]),
    )
}

fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    // Taken only to see whether that is possible, and given back at once when the file is closed.
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}
