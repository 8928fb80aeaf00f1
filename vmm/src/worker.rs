//! The thread of a device that this process serves itself, on the host: it ends when the device is reset.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread::{Builder, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Where each queue stood when the thread ended.
type Stood = Vec<(u16, u16)>;

/// The thread, and what ends it.
pub(crate) struct Worker {
    stop: EventFd,
    thread: JoinHandle<Stood>,
}

impl Worker {
    /// Starts `work`, which must return soon after the descriptor it is given becomes readable.
    ///
    /// # Errors
    /// The host has no more threads or descriptors.
    pub(crate) fn start(
        name: &str,
        work: impl FnOnce(&EventFd) -> Stood + Send + 'static,
    ) -> io::Result<Self> {
        let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let stopped = stop.try_clone()?;
        let thread = Builder::new().name(name.to_owned()).spawn(move || work(&stopped))?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread. Returns where its queues stood.
    pub(crate) fn end(self) -> Stood {
        let _one_write_is_enough = self.stop.write(1);
        self.thread.join().unwrap_or_default()
    }
}

/// Waits until one of `sources` is readable; returns which are, in their order.
///
/// # Errors
/// The host cannot wait.
pub(crate) fn wait<const N: usize>(sources: [Option<BorrowedFd<'_>>; N]) -> io::Result<[bool; N]> {
    let mut polled: Vec<PollFd<'_>> = sources
        .iter()
        .flatten()
        .map(|source| PollFd::from_borrowed_fd(*source, PollFlags::IN))
        .collect();
    loop {
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => break,
        }
    }
    let mut results = polled.iter().map(|fd| !fd.revents().is_empty());
    Ok(sources.map(|source| source.is_some() && results.next().unwrap_or(false)))
}
