//! The container's sommelier, which takes its programs' windows to the host: started inside by the first session, before
//! that session's command, so that the sockets which the environment names are there when it runs (ADR 19).
//!
//! It is a plain process of the container's user, whatever init the container has, and ends with the container. One
//! that was killed is started again by the next session.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitOptions, setsid, waitpid};
use sys::process::{Forked, fork};

use super::launch::{become_account, enter, group};
use super::target::{Target, WAYLAND_SOCKET};
use crate::container::{Live, Rootfs};

/// Where every container finds our programs.
const PROGRAM: &str = "opt/testudo/bin/sommelier";

/// Holds the socket of the X display, to which a link in /tmp leads; what empties /tmp at boot leaves it alone.
const X_DIRECTORY: &str = "/run/testudo";

/// What it says goes here, in the runtime directory; one start's lines at a time.
const LOG: &str = "sommelier.log";

/// The first session does not wait longer for the sockets; emulated on a loaded machine they take a tenth of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Returns once programs of `target`'s user find their sockets, or cannot be helped. In the processes that it forks it returns
/// their exit code.
pub(super) fn ensure(target: &Target) -> Option<ExitCode> {
    let (live, first_id) = target.container.as_ref()?;
    match start(target, live, *first_id) {
        Ok(code) => code,
        Err(error) => {
            // The session is worth more than its windows.
            tracing::warn!("no windows in this session: {error}");
            None
        }
    }
}

fn start(target: &Target, live: &Live, first_id: u32) -> io::Result<Option<ExitCode>> {
    let rootfs = Rootfs::open(&live.root())?;
    if !rootfs.exists(PROGRAM) || is_served(&rootfs, target.uid) {
        return Ok(None);
    }
    let group = group(live, first_id)?;
    let (ready, said) = pipe_with(PipeFlags::CLOEXEC)?;
    match fork()? {
        Forked::Parent(first) => {
            drop(said);
            // It forks and ends; what it leaves is the session's child and outlives it.
            waitpid(Some(first), WaitOptions::empty())?;
            wait(ready)?;
            Ok(None)
        }
        Forked::Child => {
            drop(ready);
            let inside = enter(live, Some(group)).and_then(|()| fork());
            Ok(Some(match inside {
                Ok(Forked::Child) => run(target, said),
                Ok(Forked::Parent(_)) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }))
        }
    }
}

/// Returns whether a sommelier holds the lock of its socket (wl_display_add_socket(3)).
fn is_served(rootfs: &Rootfs, uid: u32) -> bool {
    let lock = format!("run/user/{uid}/{WAYLAND_SOCKET}.lock");
    let Ok(lock) = rootfs.open_at(lock, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) else {
        return false;
    };
    flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
}

/// Waits until the sockets are there or it has ended.
fn wait(ready: OwnedFd) -> io::Result<()> {
    let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    let mut one = [PollFd::new(&ready, PollFlags::IN)];
    if poll(&mut one, Some(&patience))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match File::from(ready).read(&mut [0; 8])? {
        0 => Err(io::Error::other("sommelier has ended; see its log")),
        _ => Ok(()),
    }
}

/// Goes on inside the container as sommelier; returns only when that failed.
fn run(target: &Target, said: OwnedFd) -> ExitCode {
    match become_sommelier(target, said) {
        Ok(never) => match never {},
        Err(_) => ExitCode::FAILURE,
    }
}

fn become_sommelier(target: &Target, said: OwnedFd) -> io::Result<std::convert::Infallible> {
    setsid()?;
    become_account((0, 0), &[0])?;
    let runtime = format!("/run/user/{}", target.uid);
    let user = (target.uid, target.gid);
    make("/run/user", 0o755, (0, 0))?;
    make(&runtime, 0o700, user)?;
    make(X_DIRECTORY, 0o755, user)?;
    make("/tmp/.X11-unix", 0o1777, (0, 0))?;
    become_account(user, &target.groups)?;
    std::env::set_current_dir("/")?;
    let log = File::create(Path::new(&runtime).join(LOG))?;
    let mut command = Command::new(format!("/{PROGRAM}"));
    command
        .args(["--x-directory", X_DIRECTORY])
        .env_clear()
        .envs(&target.environment)
        .env_remove("WAYLAND_DISPLAY")
        .env_remove("DISPLAY")
        .stdin(Stdio::null())
        .stdout(said)
        .stderr(log);
    Err(command.exec())
}

/// Makes a directory that is missing, on a file system of the running container only: /run and /tmp.
fn make(path: &str, mode: u32, (uid, gid): (u32, u32)) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            chown(path, Some(uid), Some(gid))?;
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
        }
    }
}
