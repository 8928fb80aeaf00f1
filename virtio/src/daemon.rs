//! The loop of a device daemon: one thread that waits for the front end, the driver and the device's descriptors.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use thiserror::Error;
use vhost::vhost_user::{BackendReqHandler, Error as VhostError, VhostUserBackendReqHandlerMut};

use crate::backend::Carrier;
use crate::device::Device;
use crate::early;
use crate::poll::{Interest, Poll, Ready};

/// The token of the front end's socket.
const FRONTEND: u64 = u64::MAX;

/// Why a device stopped being served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// There was no descriptor left to wait with, or the device's cannot be waited for.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
    /// The front end asked for something that is against the protocol or impossible.
    #[error("cannot serve the front end's request")]
    Request(#[source] VhostError),
}

/// A device and its front end, before the first request.
pub struct Server<D: Device> {
    carrier: Arc<Mutex<Carrier<D>>>,
    frontend: BackendReqHandler<Mutex<Carrier<D>>>,
    /// The front end's socket once more: the handler owns the other and does not lend it.
    socket: UnixStream,
}

impl<D: Device> Server<D> {
    /// Gets everything that serving needs and that a jail forbids to get later.
    ///
    /// # Errors
    /// The process is out of descriptors, or the device's own cannot be waited for.
    pub fn new(socket: UnixStream, device: D) -> Result<Self, ServeError> {
        let watched = socket.try_clone().map_err(ServeError::Wait)?;
        let poll = Poll::new().map_err(ServeError::Wait)?;
        poll.add(&watched, FRONTEND, Interest::Readable)
            .map_err(ServeError::Wait)?;
        let carrier = Arc::new(Mutex::new(
            Carrier::new(device, poll).map_err(ServeError::Wait)?,
        ));
        let frontend = BackendReqHandler::from_stream(socket, Arc::clone(&carrier));
        Ok(Self {
            carrier,
            frontend,
            socket: watched,
        })
    }

    /// Serves until the front end goes away.
    ///
    /// # Errors
    /// The front end broke the protocol.
    pub fn run(mut self) -> Result<(), ServeError> {
        let mut news = Vec::new();
        loop {
            self.wait(&mut news).map_err(ServeError::Wait)?;
            for &ready in &news {
                if ready.token != FRONTEND {
                    self.lock().ready(ready);
                } else if !self.early()? && !request(&mut self.frontend)? {
                    return Ok(());
                }
            }
            self.lock().resume();
        }
    }

    /// Handles a message that `vhost` would refuse; returns false if it is none.
    fn early(&self) -> Result<bool, ServeError> {
        let mut carrier = self.lock();
        if carrier.has_features() {
            return Ok(false);
        }
        let failed = |errno: rustix::io::Errno| ServeError::Wait(errno.into());
        let Some(message) = early::take_enable(&self.socket).map_err(failed)? else {
            return Ok(false);
        };
        carrier
            .set_vring_enable(message.ring, message.enable)
            .map_err(ServeError::Request)?;
        early::acknowledge(&self.socket, message).map_err(failed)?;
        Ok(true)
    }

    /// Waits for news, or only looks for them if the device has more to do.
    fn wait(&self, news: &mut Vec<Ready>) -> io::Result<()> {
        let carrier = self.lock();
        carrier.poll().wait(news, carrier.is_busy())
    }

    /// The lock is for vhost's signature: there is one thread, which holds it only here and in requests.
    fn lock(&self) -> MutexGuard<'_, Carrier<D>> {
        self.carrier
            .lock()
            .expect("no thread has panicked with the lock")
    }
}

/// Serves `device` to the front end at the other end of `socket` until it goes away.
///
/// # Errors
/// As [`Server`].
pub fn serve(socket: UnixStream, device: impl Device) -> Result<(), ServeError> {
    Server::new(socket, device)?.run()
}

/// Handles one request; returns false when the front end has gone.
fn request<D: Device>(
    frontend: &mut BackendReqHandler<Mutex<Carrier<D>>>,
) -> Result<bool, ServeError> {
    match frontend.handle_request() {
        Ok(()) => Ok(true),
        Err(VhostError::Disconnected | VhostError::SocketBroken(_)) => Ok(false),
        // An engine that is killed in the middle of a message is no fault of this side.
        Err(VhostError::PartialMessage) => Ok(false),
        Err(error) => Err(ServeError::Request(error)),
    }
}
