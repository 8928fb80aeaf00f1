//! The sockets that programs of the container connect to, made where their libraries look for them.
//!
//! ```text
//! $XDG_RUNTIME_DIR/wayland-0        and its lock, as every compositor has one (wl_display_add_socket(3))
//! @/tmp/.X11-unix/X0                where X libraries look first
//! <x directory>/X0                  the same by a path, to which /tmp/.X11-unix/X0 is a link: what empties /tmp at boot
//!                                   takes no socket with it
//! ```

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};

/// Where X programs look for the sockets of displays; fixed by every X library.
const X_DIRECTORY: &str = "/tmp/.X11-unix";

/// The socket of Wayland clients, held by one process at a time.
#[derive(Debug)]
pub(crate) struct Display {
    listener: UnixListener,
    _lock: File,
}

impl Display {
    /// Makes the socket at `path`, taken in the runtime directory if it is only a name.
    ///
    /// # Errors
    /// When another process holds it or the place can't be written.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        let path = in_runtime_directory(path)?;
        let mut lock_path = path.clone().into_os_string();
        lock_path.push(".lock");
        let lock = File::create(&lock_path)
            .with_context(|| format!("cannot make {}", lock_path.display()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("another server listens on {}", path.display()))?;
        let listener = replace(&path)?;
        Ok(Self {
            listener,
            _lock: lock,
        })
    }

    /// Waits for the next client.
    ///
    /// # Errors
    /// When accepting fails.
    pub(crate) fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().map(|(stream, _)| stream)
    }
}

/// Makes the sockets of X display `number`, the one with a path in `directory`, which is the runtime directory if none is
/// given.
///
/// # Errors
/// When another server has that display or a place can't be written.
pub(crate) fn x_sockets(number: u32, directory: Option<&Path>) -> anyhow::Result<Vec<OwnedFd>> {
    let name = format!("X{number}");
    let public = Path::new(X_DIRECTORY).join(&name);
    let address = SocketAddr::from_abstract_name(public.as_os_str().as_encoded_bytes())
        .context("cannot name the X socket")?;
    let unnamed = UnixListener::bind_addr(&address)
        .with_context(|| format!("another server has the X display :{number}"))?;
    let path = match directory {
        Some(directory) => directory.join(&name),
        None => in_runtime_directory(Path::new(&name))?,
    };
    let named = replace(&path)?;
    if let Err(error) = link(&public, &path) {
        // Libraries try the name without a path first.
        tracing::warn!("only programs that need no path find the X display: {error:#}");
    }
    Ok(vec![unnamed.into(), named.into()])
}

/// Lets `public` lead to `path`.
fn link(public: &Path, path: &Path) -> anyhow::Result<()> {
    let context = || format!("cannot make {}", public.display());
    // systemd-tmpfiles makes the same link at boot, as root.
    if public.read_link().is_ok_and(|there| there == path) {
        return Ok(());
    }
    let made = DirBuilder::new().mode(0o1777).create(X_DIRECTORY);
    if made.is_ok() {
        // The process's mask has taken its part.
        let open = std::fs::Permissions::from_mode(0o1777);
        std::fs::set_permissions(X_DIRECTORY, open).with_context(context)?;
    }
    // A link or socket of a server that has ended is in the way; what belongs to another user stays, and is the error below.
    let _ = std::fs::remove_file(public);
    symlink(path, public).with_context(context)
}

/// Returns a socket bound to `path`, where one that nobody serves any more is replaced.
///
/// # Errors
/// When another server answers there or the place can't be written.
pub(crate) fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        bail!("another server listens on {}", path.display());
    }
    replace(path)
}

fn replace(path: &Path) -> anyhow::Result<UnixListener> {
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_link_that_is_right_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (public, path) = (folder.path().join("X9"), folder.path().join("run-X9"));
        symlink(&path, &public).unwrap();
        let before = std::fs::symlink_metadata(&public).unwrap().ino();
        link(&public, &path).unwrap();
        assert_eq!(std::fs::symlink_metadata(&public).unwrap().ino(), before);
    }

    #[test]
    fn a_display_is_held_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wayland-9");
        let first = Display::new(&path).unwrap();
        let refused = Display::new(&path).unwrap_err().to_string();
        assert!(refused.contains("another server"), "{refused}");
        drop(first);
        // The socket of the dead stays behind and is replaced.
        assert!(path.exists());
        let second = Display::new(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        second.accept().unwrap();
    }
}
