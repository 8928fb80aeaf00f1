//! One transfer from an X program to the host: properties on one side, a pipe on the other.
//!
//! A piece is only deleted, which asks the program for the next one (INCR, ICCCM 2.7.2), once the pipe
//! has taken it whole.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use x11rb::NONE;
use x11rb::protocol::xproto::{
    Atom, AtomEnum, ConnectionExt as _, Property, PropertyNotifyEvent, SelectionNotifyEvent,
};
use x11rb::rust_connection::RustConnection;

use super::XwmError;
use super::atoms::Atoms;
use super::bridge::WindowId;

/// The most words of one property: 64 MiB, the host's own limit for a whole transfer.
const MAX_WORDS: u32 = 16 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The program has been asked.
    Asked,
    /// The one property is being written to the pipe.
    Whole,
    /// A piece is being written, or the next one is awaited.
    Pieces,
    Done,
}

/// One transfer.
pub(crate) struct Outgoing {
    /// The property in which pieces come.
    property: Atom,
    /// The window that asked; its own, so that transfers do not meet in one property.
    window: WindowId,
    fd: OwnedFd,
    data: Vec<u8>,
    written: usize,
    phase: Phase,
}

impl Outgoing {
    /// Returns the transfer to `fd` of what `window` has asked for.
    #[must_use]
    pub(crate) fn new(window: WindowId, property: Atom, fd: OwnedFd) -> Self {
        // A descriptor that can't be made non-blocking would be a strange one; writing then waits.
        let _ = rustix::io::ioctl_fionbio(&fd, true);
        Self {
            property,
            window,
            fd,
            data: Vec::new(),
            written: 0,
            phase: Phase::Asked,
        }
    }

    /// Returns whether nothing is left to do.
    #[must_use]
    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Adds the pipe to `fds` while there is data for it.
    pub(crate) fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if self.written < self.data.len() {
            fds.push(PollFd::new(&self.fd, PollFlags::OUT));
        }
    }

    /// Handles the program's answer.
    ///
    /// # Errors
    /// When the X server is gone.
    pub(crate) fn converted(
        &mut self,
        x: &RustConnection,
        atoms: &Atoms,
        event: &SelectionNotifyEvent,
    ) -> Result<(), XwmError> {
        if event.requestor != self.window || self.phase != Phase::Asked {
            return Ok(());
        }
        if event.property == NONE {
            return self.finish(x);
        }
        let reply = x.get_property(
            false,
            self.window,
            event.property,
            AtomEnum::ANY,
            0,
            MAX_WORDS,
        )?;
        match reply.reply() {
            Ok(reply) if reply.type_ == atoms.INCR => {
                self.phase = Phase::Pieces;
                x.delete_property(self.window, event.property)?;
                Ok(())
            }
            Ok(reply) => {
                self.data = reply.value;
                self.phase = Phase::Whole;
                self.service(x)
            }
            Err(_) => self.finish(x),
        }
    }

    /// Handles a new piece; returns whether the event was about this transfer.
    ///
    /// # Errors
    /// When the X server is gone.
    pub(crate) fn property_changed(
        &mut self,
        x: &RustConnection,
        atoms: &Atoms,
        event: &PropertyNotifyEvent,
    ) -> Result<bool, XwmError> {
        if event.window != self.window {
            return Ok(false);
        }
        let new = event.atom == atoms.SOMMELIER_DATA && event.state == Property::NEW_VALUE;
        if new && self.phase == Phase::Pieces && self.written == self.data.len() {
            let reply =
                x.get_property(false, self.window, event.atom, AtomEnum::ANY, 0, MAX_WORDS)?;
            let piece = reply.reply().map(|reply| reply.value).unwrap_or_default();
            if piece.is_empty() {
                self.finish(x)?;
            } else {
                (self.data, self.written) = (piece, 0);
                self.write_piece(x, event.atom)?;
            }
        }
        Ok(true)
    }

    /// Moves what can be moved.
    ///
    /// # Errors
    /// When the X server is gone.
    pub(crate) fn service(&mut self, x: &RustConnection) -> Result<(), XwmError> {
        match self.phase {
            Phase::Whole => {
                if self.write() {
                    self.finish(x)?;
                }
                Ok(())
            }
            Phase::Pieces if self.written < self.data.len() => {
                let property = self.property;
                self.write_piece(x, property)
            }
            _ => Ok(()),
        }
    }

    fn write_piece(&mut self, x: &RustConnection, property: Atom) -> Result<(), XwmError> {
        if self.write() {
            x.delete_property(self.window, property)?;
        }
        Ok(())
    }

    /// Writes to the pipe and returns whether all data is gone.
    fn write(&mut self) -> bool {
        while self.written < self.data.len() {
            match rustix::io::write(&self.fd, &self.data[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                // The reader has enough.
                Err(_) => {
                    self.data.clear();
                    self.written = 0;
                    self.phase = Phase::Whole;
                }
            }
        }
        true
    }

    fn finish(&mut self, x: &RustConnection) -> Result<(), XwmError> {
        self.phase = Phase::Done;
        x.destroy_window(self.window)?;
        Ok(())
    }
}
