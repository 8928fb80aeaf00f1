//! Pipes that reach across the stream: clipboards and drag and drop.
//!
//! In Wayland the side that wants data hands out the *write* end of a pipe. The end of the stream
//! that receives that descriptor is the pipe's origin: it writes what comes back. The other
//! end makes a new pipe, gives its write end to the program that has the data, and reads from it.
//!
//! ```text
//!  reader ◀─pipe─ origin ◀──── Pipe, PipeEnd ──── far end ◀─pipe─ writer
//!                        ───── PipeCredit, PipeBroken ───▶
//! ```
//!
//! Both directions never block, an end of file is only ever a real one, and a writer learns by
//! EPIPE that its reader is gone.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use thiserror::Error;

use crate::frame::{Frame, MAX_PIPE_LEN};
use crate::outbox::Outbox;

/// How much may be on its way in one pipe: enough for vsock's speed, small beside the limits.
const WINDOW: u32 = 256 * 1024;

/// The most pipes one client may have open in each direction. A clipboard manager reads a
/// dozen types at once.
pub const MAX_PIPES: usize = 64;

/// What one transfer may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes of one transfer.
    pub max_bytes: u64,
    /// How long a transfer may stand still before it is cut.
    pub stall: Duration,
}

impl Default for Limits {
    /// No limits, as in the container: the host end sets those that count.
    fn default() -> Self {
        Self {
            max_bytes: u64::MAX,
            stall: Duration::from_secs(3600),
        }
    }
}

/// A pipe message that breaks the rules of the stream.
#[derive(Debug, Error)]
pub enum PipeError {
    /// Too many pipes at once.
    #[error("more than {MAX_PIPES} pipes")]
    TooMany,
    /// A number that is in use already.
    #[error("pipe {0} exists")]
    Exists(u32),
    /// More data than there was credit for.
    #[error("pipe {0} overruns its window")]
    Overrun(u32),
    /// No descriptor left in this process.
    #[error("cannot make a pipe")]
    Make(#[source] io::Error),
}

/// A transfer that has come to its end, for the audit line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes that passed.
    pub bytes: u64,
    /// Whether it was cut by a limit.
    pub cut: bool,
    /// Whether the data came from this end's programs.
    pub outward: bool,
}

#[derive(Debug)]
struct Origin {
    fd: OwnedFd,
    waiting: Vec<u8>,
    bytes: u64,
    ended: bool,
    moved: Instant,
}

#[derive(Debug)]
struct Far {
    fd: OwnedFd,
    credit: u32,
    bytes: u64,
    moved: Instant,
}

/// All pipes of one connection.
#[derive(Debug)]
pub struct Pipes {
    origins: HashMap<u32, Origin>,
    fars: HashMap<u32, Far>,
    next: u32,
    limits: Limits,
    finished: Vec<Transfer>,
}

impl Pipes {
    /// Returns an empty set.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let (origins, fars) = (HashMap::new(), HashMap::new());
        Self {
            origins,
            fars,
            next: 1,
            limits,
            finished: Vec::new(),
        }
    }

    /// Takes the write end of a local pipe and returns its number on the stream.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add_origin(&mut self, fd: OwnedFd) -> Result<u32, PipeError> {
        if self.origins.len() >= MAX_PIPES {
            return Err(PipeError::TooMany);
        }
        // A pipe that stays blocking would let one stopped reader stop every window of its client.
        rustix::io::ioctl_fionbio(&fd, true).map_err(|error| PipeError::Make(error.into()))?;
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let moved = Instant::now();
        let origin = Origin {
            fd,
            waiting: Vec::new(),
            bytes: 0,
            ended: false,
            moved,
        };
        self.origins.insert(id, origin);
        Ok(id)
    }

    /// Makes the far end of pipe `id` and returns the write end for the local writer.
    ///
    /// # Errors
    /// When there are too many or the number is in use.
    pub fn add_far(&mut self, id: u32) -> Result<OwnedFd, PipeError> {
        if self.fars.len() >= MAX_PIPES {
            return Err(PipeError::TooMany);
        }
        if self.fars.contains_key(&id) {
            return Err(PipeError::Exists(id));
        }
        let (fd, write_end) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| PipeError::Make(error.into()))?;
        rustix::io::ioctl_fionbio(&fd, true).map_err(|error| PipeError::Make(error.into()))?;
        self.fars.insert(
            id,
            Far {
                fd,
                credit: WINDOW,
                bytes: 0,
                moved: Instant::now(),
            },
        );
        Ok(write_end)
    }

    /// Takes data for the reader behind origin `id`.
    ///
    /// # Errors
    /// When the other end sends more than it has credit for.
    pub fn data(&mut self, id: u32, bytes: &[u8]) -> Result<(), PipeError> {
        // A pipe that was just broken may still have data on its way.
        let Some(origin) = self.origins.get_mut(&id) else {
            return Ok(());
        };
        if origin.waiting.len() + bytes.len() > WINDOW as usize {
            return Err(PipeError::Overrun(id));
        }
        if origin.waiting.is_empty() {
            origin.moved = Instant::now();
        }
        origin.waiting.extend_from_slice(bytes);
        Ok(())
    }

    /// Notes that the writer of origin `id` has finished.
    pub fn end(&mut self, id: u32) {
        if let Some(origin) = self.origins.get_mut(&id) {
            origin.ended = true;
        }
    }

    /// Closes the far end `id`, whose reader is gone.
    pub fn broken(&mut self, id: u32) {
        if let Some(far) = self.fars.remove(&id) {
            self.finished.push(Transfer {
                bytes: far.bytes,
                cut: false,
                outward: true,
            });
        }
    }

    /// Allows the far end `id` that many more bytes.
    pub fn credit(&mut self, id: u32, more: u32) {
        if let Some(far) = self.fars.get_mut(&id) {
            far.credit = far.credit.saturating_add(more).min(WINDOW);
        }
    }

    /// Returns whether no transfer is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.origins.is_empty() && self.fars.is_empty()
    }

    /// Returns the transfers that have ended since the last call.
    pub fn take_finished(&mut self) -> Vec<Transfer> {
        std::mem::take(&mut self.finished)
    }

    /// Adds what this set waits for to `fds`.
    pub fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        for origin in self.origins.values() {
            // With nothing to write only the reader's leaving is of interest, which poll always tells.
            let wanted = if origin.waiting.is_empty() {
                PollFlags::empty()
            } else {
                PollFlags::OUT
            };
            fds.push(PollFd::new(&origin.fd, wanted));
        }
        for far in self.fars.values() {
            let wanted = if far.credit > 0 {
                PollFlags::IN
            } else {
                PollFlags::empty()
            };
            fds.push(PollFd::new(&far.fd, wanted));
        }
    }

    /// Moves what can be moved and queues the frames that follow from it.
    pub fn service(&mut self, outbox: &mut Outbox) {
        let now = Instant::now();
        let (limits, finished) = (self.limits, &mut self.finished);
        self.origins.retain(|id, origin| {
            let outcome = origin.write(*id, limits, now, outbox);
            finished.extend(outcome);
            outcome.is_none()
        });
        self.fars.retain(|id, far| {
            let outcome = far.read(*id, limits, now, outbox);
            finished.extend(outcome);
            outcome.is_none()
        });
    }
}

impl Origin {
    fn write(
        &mut self,
        id: u32,
        limits: Limits,
        now: Instant,
        outbox: &mut Outbox,
    ) -> Option<Transfer> {
        let mut wrote = 0;
        let mut gone = !self.waiting.is_empty() && reader_is_gone(&self.fd);
        while !gone && wrote < self.waiting.len() {
            match rustix::io::write(&self.fd, &self.waiting[wrote..]) {
                Ok(count) => wrote += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => gone = true,
            }
        }
        if wrote > 0 {
            self.waiting.drain(..wrote);
            self.bytes += wrote as u64;
            self.moved = now;
            let more = u32::try_from(wrote).expect("at most one window is waiting");
            outbox.frame(&Frame::PipeCredit(id, more));
        }
        let stalled = !self.waiting.is_empty() && now - self.moved > limits.stall;
        let cut = self.bytes > limits.max_bytes || stalled;
        if gone || cut || (self.waiting.is_empty() && reader_is_gone(&self.fd)) {
            outbox.frame(&Frame::PipeBroken(id));
        } else if !(self.ended && self.waiting.is_empty()) {
            return None;
        }
        Some(Transfer {
            bytes: self.bytes,
            cut,
            outward: false,
        })
    }
}

impl Far {
    fn read(
        &mut self,
        id: u32,
        limits: Limits,
        now: Instant,
        outbox: &mut Outbox,
    ) -> Option<Transfer> {
        let mut chunk = [0; MAX_PIPE_LEN];
        while self.credit > 0 && !outbox.congested() {
            let room = chunk.len().min(self.credit as usize);
            match rustix::io::read(&self.fd, &mut chunk[..room]) {
                Ok(0) => {
                    outbox.frame(&Frame::PipeEnd(id));
                    return Some(Transfer {
                        bytes: self.bytes,
                        cut: false,
                        outward: true,
                    });
                }
                Ok(got) => {
                    outbox.frame(&Frame::Pipe(id, &chunk[..got]));
                    self.credit -= u32::try_from(got).expect("at most one chunk");
                    self.bytes += got as u64;
                    self.moved = now;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => {
                    outbox.frame(&Frame::PipeEnd(id));
                    return Some(Transfer {
                        bytes: self.bytes,
                        cut: true,
                        outward: true,
                    });
                }
            }
        }
        let stalled = self.credit > 0 && now - self.moved > limits.stall;
        if self.bytes > limits.max_bytes || stalled {
            outbox.frame(&Frame::PipeEnd(id));
            return Some(Transfer {
                bytes: self.bytes,
                cut: true,
                outward: true,
            });
        }
        None
    }
}

fn reader_is_gone(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::empty())];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let found = rustix::event::poll(&mut fds, Some(&now));
    matches!(found, Ok(1..)) && fds[0].revents().contains(PollFlags::ERR)
}
