//! The host's end of the cable: passt's stream socket, on which each frame follows its length.
//!
//! It is the protocol of QEMU's `-netdev stream` (and of older passt versions' only mode): a big-endian `u32`, then
//! so many bytes of Ethernet frame without its checksum.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use thiserror::Error;
use virtio::write_some;
use vm_memory::VolatileSlice;

use crate::allowed::Outgoing;

/// The largest frame: 64 KiB of packet, which IP cannot exceed, after an Ethernet header with a VLAN tag.
pub(crate) const MAX_FRAME: usize = 65_535 + 18;

/// Bytes of the length before each frame.
const LENGTH: usize = 4;

/// What is read at a time, and so the most that waits for the guest: some hundred packets, or the four largest.
const INBOX: usize = 256 * 1024;

/// Why the cable is of no more use.
#[derive(Debug, Error)]
pub(crate) enum Cut {
    /// The other side has gone.
    #[error("the other side has closed the socket")]
    Closed,
    /// It announced a frame that cannot be.
    #[error("a frame of {0} bytes was announced")]
    Impossible(usize),
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Failed(io::Error),
}

/// What became of a batch of frames from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The socket took all, or the rest is kept; more may follow.
    Sent,
    /// The socket is full.
    Full,
}

/// A connection to passt.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: UnixStream,
    inbox: Box<[u8]>,
    /// Where the bytes that were not given to the guest yet begin and end.
    unread: std::ops::Range<usize>,
    /// The rest of a batch that the socket did not take whole: a frame cannot be taken back half-sent.
    unsent: Vec<u8>,
}

impl Stream {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let inbox = vec![0; INBOX].into_boxed_slice();
        Ok(Self {
            socket,
            inbox,
            unread: 0..0,
            unsent: Vec::new(),
        })
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Returns the next whole frame that was read.
    pub(crate) fn frame(&self) -> Result<Option<&[u8]>, Cut> {
        let bytes = self.inbox.get(self.unread.clone()).unwrap_or_default();
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(Cut::Impossible(length));
        }
        Ok(rest.get(..length))
    }

    /// Forgets a frame of `length` bytes that [`Stream::frame`] returned.
    pub(crate) fn forget_frame(&mut self, length: usize) {
        self.unread.start = self
            .unread
            .start
            .saturating_add(LENGTH)
            .saturating_add(length);
    }

    /// Reads more, after every whole frame was forgotten; returns whether there was any.
    pub(crate) fn fill(&mut self) -> Result<bool, Cut> {
        // Less than a frame is left, so the inbox always has room after this.
        self.inbox.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let room = self.inbox.get_mut(self.unread.end..).unwrap_or_default();
        match self.socket.read(room) {
            Ok(0) => Err(Cut::Closed),
            Ok(count) => {
                self.unread.end = self.unread.end.saturating_add(count);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(Cut::Failed(error)),
        }
    }

    /// Sends frames, all but their heads straight from guest memory.
    pub(crate) fn send(&mut self, frames: &mut [Outgoing<'_>]) -> Result<Outcome, Cut> {
        let mut lengths: Vec<[u8; LENGTH]> = frames
            .iter()
            .map(|frame| u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes())
            .collect();
        let mut slices: Vec<VolatileSlice<'_>> = Vec::new();
        for (length, frame) in lengths.iter_mut().zip(frames.iter_mut()) {
            slices.push(VolatileSlice::from(length.as_mut_slice()));
            let (head, rest) = frame.parts();
            slices.push(VolatileSlice::from(head));
            slices.extend_from_slice(rest.slices());
        }
        let mut sent = match write_some(&self.socket, &slices) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(Cut::Failed(error)),
        };
        for slice in slices {
            let skipped = sent.min(slice.len());
            sent = sent.saturating_sub(skipped);
            if let Ok(rest) = slice.offset(skipped) {
                let start = self.unsent.len();
                self.unsent.resize(start.saturating_add(rest.len()), 0);
                rest.copy_to(self.unsent.get_mut(start..).unwrap_or_default());
            }
        }
        Ok(if self.unsent.is_empty() {
            Outcome::Sent
        } else {
            Outcome::Full
        })
    }

    /// Sends what was kept.
    pub(crate) fn flush(&mut self) -> Result<Outcome, Cut> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Outcome::Full),
                Err(error) => return Err(Cut::Failed(error)),
            }
        }
        Ok(Outcome::Sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Stream::new(ours).unwrap(), theirs)
    }

    #[test]
    fn frame_in_pieces_is_put_together() {
        let (mut stream, mut passt) = pair();
        for byte in [0, 0, 0, 3, b'a', b'b'] {
            passt.write_all(&[byte]).unwrap();
            assert!(stream.fill().unwrap());
            assert!(stream.frame().unwrap().is_none());
        }
        passt.write_all(b"c\0\0").unwrap();
        assert!(stream.fill().unwrap());
        assert_eq!(stream.frame().unwrap(), Some(&b"abc"[..]));
        stream.forget_frame(3);
        assert!(stream.frame().unwrap().is_none());
        assert!(!stream.fill().unwrap());
    }

    #[test]
    fn impossible_length_cuts_the_cable() {
        let (mut stream, mut passt) = pair();
        passt.write_all(&[0xff; 4]).unwrap();
        assert!(stream.fill().unwrap());
        assert!(matches!(stream.frame(), Err(Cut::Impossible(_))));
    }

    #[test]
    fn end_of_the_other_side_cuts_the_cable() {
        let (mut stream, passt) = pair();
        drop(passt);
        assert!(matches!(stream.fill(), Err(Cut::Closed)));
    }
}
