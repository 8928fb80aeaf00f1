//! The sockets that programs of the container connect to: passed by systemd, or made here.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sys::inherited::Kind;

/// The number of the first passed descriptor, fixed by sd_listen_fds(3).
const FIRST_PASSED: i32 = 3;

/// More sockets than this are not of our unit's making.
const MAX_PASSED: i32 = 8;

/// Returns the socket for Wayland clients: systemd's, or a new one at `path`.
///
/// # Errors
/// When there is no such place or another server answers there.
pub fn wayland(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(passed) = passed_sockets()?.into_iter().next() {
        return Ok(passed.into());
    }
    let path = in_runtime_directory(path)?;
    bind(&path)
}

/// Returns a socket bound to `path`, where a socket nobody serves any more is replaced.
///
/// # Errors
/// When another server answers there or the place can't be written.
pub fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another server listens on {}", path.display());
    }
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))
}

/// Returns `path`, taken in the runtime directory if it is only a name.
///
/// # Errors
/// When there is no runtime directory.
pub fn in_runtime_directory(path: &Path) -> anyhow::Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let directory = std::env::var_os("XDG_RUNTIME_DIR").context("XDG_RUNTIME_DIR is not set")?;
    Ok(Path::new(&directory).join(path))
}

/// Returns the listening sockets that systemd has passed to this process (sd_listen_fds(3)).
fn passed_sockets() -> anyhow::Result<Vec<OwnedFd>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    if number("LISTEN_PID") != i32::try_from(std::process::id()).ok() {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, MAX_PASSED);
    (FIRST_PASSED..FIRST_PASSED + count)
        .map(|fd| sys::inherited::take(fd, Kind::Listening).context("cannot use systemd's socket"))
        .collect()
}
