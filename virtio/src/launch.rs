//! How a daemon begins: takes its descriptors, enters its jail, meets the front end and serves it.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use spec::device::VhostSocket;
use spec::fd::InheritedFd;
use sys::inherited::{InheritError, Kind};
use sys::jail::{Allowed, Jail, JailError, Limits, Root, Walls};
use thiserror::Error;

use crate::daemon::{ServeError, Server};
use crate::device::Device;

/// How long a daemon with a listening socket waits for its engine, which is started next to it: a loaded machine
/// starts QEMU within seconds, and a daemon that nobody needs must not stay.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Standard streams, the front end, epoll, and two eventfds for each of a few rings.
const BASE_DESCRIPTORS: u64 = 64;

/// Why a daemon ended before its engine did.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// A descriptor is not what the message says.
    #[error("cannot use a descriptor of the device specification")]
    Descriptor(#[from] InheritError),
    /// The jail could not be entered.
    #[error("cannot enter the jail")]
    Jail(#[from] JailError),
    /// Accepting the front end failed.
    #[error("cannot accept the front end's connection")]
    Accept(#[source] std::io::Error),
    /// Nobody connected in time.
    #[error("no front end connected within {} s", CONNECT_TIMEOUT.as_secs())]
    Nobody,
    /// The device could not be made from what the message names.
    #[error("cannot set up the device")]
    Device(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Serving failed.
    #[error("cannot go on serving")]
    Serve(#[from] ServeError),
}

impl LaunchError {
    /// Returns the exit status, which stays the same from version to version.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Accept(_) | Self::Serve(_) => 1,
            Self::Descriptor(_) | Self::Device(_) => 2,
            Self::Jail(_) => 3,
            Self::Nobody => 4,
        }
    }
}

/// Where the front end will be.
#[derive(Debug)]
pub enum Frontend {
    /// Here.
    Connected(UnixStream),
    /// Coming.
    Listening(UnixListener),
}

impl Frontend {
    /// Takes the socket that the message names.
    ///
    /// # Errors
    /// It is not such a socket.
    pub fn take(socket: VhostSocket) -> Result<Self, InheritError> {
        Ok(match socket {
            VhostSocket::Connected(fd) => Self::Connected(take(fd, Kind::Connected)?.into()),
            VhostSocket::Listening(fd) => Self::Listening(take(fd, Kind::Listening)?.into()),
        })
    }

    /// Waits for the front end and closes the door behind it.
    fn meet(self) -> Result<UnixStream, LaunchError> {
        let listener = match self {
            Self::Connected(stream) => return Ok(stream),
            Self::Listening(listener) => listener,
        };
        let timeout = Timespec::try_from(CONNECT_TIMEOUT).expect("a minute is a valid timespec");
        let mut door = [PollFd::new(&listener, PollFlags::IN)];
        let knocks = rustix::event::poll(&mut door, Some(&timeout));
        if knocks.map_err(|errno| LaunchError::Accept(errno.into()))? == 0 {
            return Err(LaunchError::Nobody);
        }
        let (stream, _address) = listener.accept().map_err(LaunchError::Accept)?;
        // A listener may have been handed over as non-blocking; requests are read whole.
        stream.set_nonblocking(false).map_err(LaunchError::Accept)?;
        Ok(stream)
    }
}

/// Takes one descriptor that the message names.
///
/// # Errors
/// It is not open or not a `wanted`.
pub fn take(fd: InheritedFd, wanted: Kind) -> Result<OwnedFd, InheritError> {
    sys::inherited::take(fd.0, wanted)
}

/// What a device's jail is made of.
#[derive(Debug)]
pub struct Policy {
    /// What stays visible.
    pub root: Root,
    /// Descriptors the device opens itself, beside the loop's.
    pub descriptors: u64,
    /// System calls beside [`crate::jail::COMMON`].
    pub allowed: &'static [Allowed],
}

/// Enters the jail, meets the front end and serves `device` until the front end goes.
///
/// # Errors
/// See [`LaunchError`].
pub fn run(frontend: Frontend, policy: Policy, device: impl Device) -> Result<(), LaunchError> {
    let kicks_and_calls = device.queues() as u64 * 3;
    let descriptors = BASE_DESCRIPTORS + kicks_and_calls + policy.descriptors;
    let limits = Limits {
        descriptors,
        threads: 0,
    };
    let cell = Jail {
        root: policy.root,
        limits,
    }
    .isolate()?;
    if let Walls::WithoutNamespaces(refusal) = cell.walls() {
        tracing::warn!("no namespaces of its own: the kernel refused them ({refusal})");
    }
    let socket = frontend.meet()?;
    let server = Server::new(socket, device)?;
    cell.lock(&[crate::jail::COMMON, policy.allowed])?;
    Ok(server.run()?)
}
