//! The thread of a device that this process serves itself, on the host: it ends when the device is reset.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread::{Builder, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The thread, and what ends it; it leaves a `T`.
pub(crate) struct Worker<T> {
    stop: EventFd,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts `work`, which must return soon after the descriptor it is given becomes readable.
    ///
    /// # Errors
    /// The host has no more threads or descriptors.
    pub(crate) fn start(
        name: &str,
        work: impl FnOnce(&EventFd) -> T + Send + 'static,
    ) -> io::Result<Self> {
        let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let stopped = stop.try_clone()?;
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&stopped))?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread and returns what it leaves; nothing if it panicked, which has been printed.
    pub(crate) fn end(self) -> Option<T> {
        let _one_write_is_enough = self.stop.write(1);
        self.thread.join().ok()
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
