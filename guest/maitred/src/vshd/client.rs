//! The host's end of a session: frames in and out, without waiting, with bounded memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use wire::proto::vsh_reply::Reply;
use wire::proto::vsh_request::Request;
use wire::proto::{VshReply, VshRequest};
use wire::vsh;

/// Bytes taken from the connection at once.
const READ: usize = 64 << 10;

/// Output that waits for the host; the command's output is not read while there is more.
const OUTPUT_MAX: usize = 256 << 10;

/// A connection in non-blocking mode.
#[derive(Debug)]
pub(super) struct Client {
    stream: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of `output` that have left already.
    sent: usize,
}

impl Client {
    pub(super) fn new(stream: OwnedFd) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
        }
    }

    /// Puts `reply` in line.
    pub(super) fn queue(&mut self, reply: Reply) {
        vsh::encode(&VshReply { reply: Some(reply) }, &mut self.output);
    }

    /// Whether more output may be put in line.
    pub(super) fn has_room(&self) -> bool {
        self.output.len() - self.sent < OUTPUT_MAX
    }

    /// Whether output waits to leave.
    pub(super) fn is_pending(&self) -> bool {
        self.sent < self.output.len()
    }

    /// Sends what the connection takes now.
    pub(super) fn send(&mut self) -> io::Result<()> {
        while self.is_pending() {
            match rustix::io::write(&self.stream, &self.output[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }

    /// Sends everything, waiting for the host as long as it reads.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        while self.is_pending() {
            wait(&self.stream, PollFlags::OUT, None)?;
            self.send()?;
        }
        Ok(())
    }

    /// Takes in what has arrived; `false` when the host has hung up.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        let old = self.input.len();
        self.input.resize(old + READ, 0);
        let read = rustix::io::read(&self.stream, &mut self.input[old..]);
        self.input.truncate(old + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Ok(false),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the next whole request, if there is one. One that says nothing we know is passed over.
    pub(super) fn next(&mut self) -> io::Result<Option<Request>> {
        loop {
            match vsh::decode::<VshRequest>(&mut self.input).map_err(io::Error::other)? {
                None => return Ok(None),
                Some(VshRequest {
                    request: Some(request),
                }) => return Ok(Some(request)),
                Some(VshRequest { request: None }) => {}
            }
        }
    }

    /// Waits for one request; `None` when the host hangs up instead.
    pub(super) fn receive(&mut self, timeout: Duration) -> io::Result<Option<Request>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(request) = self.next()? {
                return Ok(Some(request));
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            wait(&self.stream, PollFlags::IN, Some(rest))?;
            if !self.fill()? {
                return Ok(None);
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Waits until `fd` is ready for `flags`.
fn wait(fd: &OwnedFd, flags: PollFlags, timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    });
    match poll(&mut [PollFd::new(fd, flags)], timeout.as_ref()) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
