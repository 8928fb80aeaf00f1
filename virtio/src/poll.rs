//! Waits for descriptors: the front end's socket, the driver's kicks, and whatever the device itself works on.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// The most events taken in one turn; the rest come in the next.
const EVENTS_PER_TURN: usize = 64;

/// When a descriptor is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// As long as it can be read.
    Readable,
    /// Each time it becomes readable or writable, or its peer goes away; the device remembers the state.
    Changes,
}

/// A descriptor's news.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// What [`Poll::add`] was told.
    pub token: u64,
    /// It can be read, or its end or error can be.
    pub readable: bool,
    /// It can be written to, or its error can be read.
    pub writable: bool,
}

/// An epoll instance.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    /// Creates one without descriptors.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    /// Reports `fd` under `token` from now on, until it is removed or closed.
    ///
    /// # Errors
    /// `fd` cannot be waited for, or is there already.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Readable => epoll::EventFlags::IN,
            Interest::Changes => {
                epoll::EventFlags::IN
                    | epoll::EventFlags::OUT
                    | epoll::EventFlags::RDHUP
                    | epoll::EventFlags::ET
            }
        };
        Ok(epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token),
            flags,
        )?)
    }

    /// Reports each write to the eventfd `fd` once, so that it need not be read.
    pub(crate) fn add_kick(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token),
            flags,
        )?)
    }

    /// Stops reporting `fd`, which others may still have open.
    ///
    /// # Errors
    /// `fd` was not added.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until something is ready, unless `only_look`, and puts it into `news`.
    pub(crate) fn wait(&self, news: &mut Vec<Ready>, only_look: bool) -> io::Result<()> {
        const NOW: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timeout = only_look.then_some(&NOW);
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let gone = epoll::EventFlags::HUP | epoll::EventFlags::ERR | epoll::EventFlags::RDHUP;
        news.clear();
        news.extend(events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                token: event.data.u64(),
                readable: flags.intersects(epoll::EventFlags::IN | gone),
                writable: flags.intersects(
                    epoll::EventFlags::OUT | epoll::EventFlags::HUP | epoll::EventFlags::ERR,
                ),
            }
        }));
        Ok(())
    }
}
