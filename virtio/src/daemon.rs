//! The loop of a device daemon: one thread that waits for the front end, the driver and the device's descriptors.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use thiserror::Error;
use vhost::vhost_user::{BackendReqHandler, Error as VhostError};

use crate::backend::Carrier;
use crate::device::Device;
use crate::poll::{Interest, Poll};

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

/// Serves `device` to the front end at the other end of `socket` until it goes away.
///
/// # Errors
/// The front end broke the protocol, or the process is out of descriptors.
pub fn serve(socket: UnixStream, device: impl Device) -> Result<(), ServeError> {
    let watched = socket.try_clone().map_err(ServeError::Wait)?;
    let poll = Poll::new().map_err(ServeError::Wait)?;
    poll.add(&watched, FRONTEND, Interest::Readable).map_err(ServeError::Wait)?;
    let carrier = Arc::new(Mutex::new(Carrier::new(device, poll).map_err(ServeError::Wait)?));
    let mut frontend = BackendReqHandler::from_stream(socket, Arc::clone(&carrier));
    let mut news = Vec::new();
    loop {
        // The lock is for vhost's signature: there is one thread, and it holds the lock only here and in requests.
        let lock = || carrier.lock().expect("no thread has panicked with the lock");
        lock().poll().wait(&mut news).map_err(ServeError::Wait)?;
        for &ready in &news {
            if ready.token != FRONTEND {
                lock().ready(ready);
            } else if !request(&mut frontend)? {
                return Ok(());
            }
        }
    }
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
