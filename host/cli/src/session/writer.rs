//! The one way to vshd: whole frames, from whichever thread has something to say.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use wire::proto::VshRequest;
use wire::proto::vsh_request::Request;
use wire::vsh;

/// Sends requests to vshd.
#[derive(Debug)]
pub(super) struct Writer(Mutex<(UnixStream, Vec<u8>)>);

impl Writer {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(Mutex::new((stream, Vec::new())))
    }

    /// Sends one request; returns when the socket has taken it.
    pub(super) fn send(&self, request: Request) -> io::Result<()> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (stream, frame) = &mut *guard;
        frame.clear();
        vsh::encode(
            &VshRequest {
                request: Some(request),
            },
            frame,
        );
        stream.write_all(frame)
    }
}
