//! The sockets that programs of the container connect to: passed by systemd, or made here.

use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sys::inherited::Kind;

/// Where X programs look for the socket of a display; fixed by every X library.
const X_PATH: &str = "/tmp/.X11-unix/X";

/// The number of the first passed descriptor, fixed by sd_listen_fds(3).
const FIRST_PASSED: i32 = 3;

/// More sockets than this are not of our unit's making.
const MAX_PASSED: i32 = 8;

/// Returns the socket for Wayland clients and those for X ones: systemd's, told apart by their paths,
/// or new ones at `path` and for X display `display`.
///
/// # Errors
/// When there is no such place or another server answers there.
pub(crate) fn sockets(path: &Path, display: u32) -> anyhow::Result<(UnixListener, Vec<OwnedFd>)> {
    let (mut wayland, mut x) = (None, Vec::new());
    for passed in passed_sockets()? {
        let listener = UnixListener::from(passed);
        if is_x(&listener) {
            x.push(listener.into());
        } else {
            wayland = Some(listener);
        }
    }
    let wayland = match wayland {
        Some(passed) => passed,
        None => bind(&in_runtime_directory(path)?)?,
    };
    if x.is_empty() {
        x.push(bind(Path::new(&format!("{X_PATH}{display}")))?.into());
    }
    Ok((wayland, x))
}

fn is_x(listener: &UnixListener) -> bool {
    listener.local_addr().is_ok_and(|address| {
        let named = address
            .as_pathname()
            .map(|path| path.as_os_str().as_bytes());
        let name = named
            .or_else(|| address.as_abstract_name())
            .unwrap_or_default();
        name.starts_with(X_PATH.as_bytes())
    })
}

/// Returns a socket bound to `path`, where a socket nobody serves any more is replaced.
///
/// # Errors
/// When another server answers there or the place can't be written.
pub(crate) fn bind(path: &Path) -> anyhow::Result<UnixListener> {
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
pub(crate) fn in_runtime_directory(path: &Path) -> anyhow::Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let directory = std::env::var_os("XDG_RUNTIME_DIR").context("XDG_RUNTIME_DIR is not set")?;
    Ok(Path::new(&directory).join(path))
}

/// Returns the listening sockets that systemd has passed to this process (sd_listen_fds(3)).
fn passed_sockets() -> anyhow::Result<Vec<OwnedFd>> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<i32>().ok())
    };
    if number("LISTEN_PID") != i32::try_from(std::process::id()).ok() {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, MAX_PASSED);
    (FIRST_PASSED..FIRST_PASSED + count)
        .map(|fd| sys::inherited::take(fd, Kind::Listening).context("cannot use systemd's socket"))
        .collect()
}
