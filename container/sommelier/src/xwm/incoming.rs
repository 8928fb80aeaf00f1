//! One transfer from the host to an X program: a pipe on one side, properties on the other.
//!
//! Small data is one property. Larger data goes in pieces (INCR, ICCCM 2.7.2): each piece is written
//! when the program has deleted the one before, so a slow program slows the pipe and nothing else.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use x11rb::NONE;
use x11rb::protocol::xproto::{
    Atom, ChangeWindowAttributesAux, ConnectionExt as _, EventMask, PropMode, Property,
    PropertyNotifyEvent, SelectionRequestEvent,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

use super::XwmError;
use super::atoms::Atoms;
use super::selection::answer;

/// How much goes into one property: below the server's smallest request limit of 256 KiB.
const PIECE: usize = 128 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody has been answered yet.
    Gathering,
    /// The program has yet to take the last piece.
    Waiting,
    /// The next piece may be written.
    Ready,
    Done,
}

/// One transfer.
pub(crate) struct Incoming {
    pipe: OwnedFd,
    request: SelectionRequestEvent,
    property: Atom,
    data: Vec<u8>,
    ended: bool,
    phase: Phase,
}

impl Incoming {
    /// Returns the transfer from `pipe` that answers `request` in `property`.
    #[must_use]
    pub(crate) fn new(pipe: OwnedFd, request: SelectionRequestEvent, property: Atom) -> Self {
        let (data, ended, phase) = (Vec::new(), false, Phase::Gathering);
        Self {
            pipe,
            request,
            property,
            data,
            ended,
            phase,
        }
    }

    /// Returns whether nothing is left to do.
    #[must_use]
    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Adds the pipe to `fds` while there is room for its data.
    pub(crate) fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if self.wants_data() {
            fds.push(PollFd::new(&self.pipe, PollFlags::IN));
        }
    }

    /// Notes that the program has taken a piece; returns whether the event was about this transfer.
    pub(crate) fn property_changed(&mut self, event: &PropertyNotifyEvent) -> bool {
        let ours = event.window == self.request.requestor && event.atom == self.property;
        if ours && event.state == Property::DELETE && self.phase == Phase::Waiting {
            self.phase = Phase::Ready;
        }
        ours
    }

    /// Moves what can be moved.
    ///
    /// # Errors
    /// When the X server is gone.
    pub(crate) fn service(&mut self, x: &RustConnection, atoms: &Atoms) -> Result<(), XwmError> {
        self.fill();
        match self.phase {
            Phase::Gathering if self.ended => {
                let data = std::mem::take(&mut self.data);
                self.write(x, &data)?;
                answer(x, &self.request, self.property)?;
                self.phase = Phase::Done;
            }
            Phase::Gathering if self.data.len() >= PIECE => self.start_pieces(x, atoms)?,
            Phase::Ready if self.ended || !self.data.is_empty() => {
                let piece: Vec<u8> = self.data.drain(..self.data.len().min(PIECE)).collect();
                self.write(x, &piece)?;
                // The empty piece says that there are no more.
                self.phase = if piece.is_empty() {
                    Phase::Done
                } else {
                    Phase::Waiting
                };
            }
            _ => {}
        }
        Ok(())
    }

    fn start_pieces(&mut self, x: &RustConnection, atoms: &Atoms) -> Result<(), XwmError> {
        let requestor = self.request.requestor;
        let mask = ChangeWindowAttributesAux::new().event_mask(EventMask::PROPERTY_CHANGE);
        // A program that is gone by now: the transfer has no one to go to.
        if x.change_window_attributes(requestor, &mask)?
            .check()
            .is_err()
        {
            self.phase = Phase::Done;
            return answer(x, &self.request, NONE);
        }
        let at_least = [u32::try_from(self.data.len()).unwrap_or(u32::MAX)];
        x.change_property32(
            PropMode::REPLACE,
            requestor,
            self.property,
            atoms.INCR,
            &at_least,
        )?;
        self.phase = Phase::Waiting;
        answer(x, &self.request, self.property)
    }

    fn write(&self, x: &RustConnection, data: &[u8]) -> Result<(), XwmError> {
        let (requestor, kind) = (self.request.requestor, self.request.target);
        x.change_property8(PropMode::REPLACE, requestor, self.property, kind, data)?;
        Ok(())
    }

    fn wants_data(&self) -> bool {
        !self.ended && self.data.len() < PIECE
    }

    fn fill(&mut self) {
        let mut chunk = [0; 64 * 1024];
        while self.wants_data() {
            match rustix::io::read(&self.pipe, &mut chunk[..]) {
                Ok(0) => self.ended = true,
                Ok(got) => self.data.extend_from_slice(&chunk[..got]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.ended = true,
            }
        }
    }
}
