//! The host's end of the cable: passt's stream socket, on which each frame follows its length.
//!
//! It is the protocol of QEMU's `-netdev stream` (and of older passt versions' only mode): a big-endian `u32`, then
//! so many bytes of Ethernet frame without its checksum.
//!
//! Frames are copied on their way: what was judged is then what is sent, whatever the guest does to its memory, many
//! small frames cost one system call, and what the socket does not take has a place.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use virtio::{Buffers, limited};

use crate::allowed::may_leave;
use crate::cable::{Cut, MAX_FRAME, Outcome};
use crate::header::{HEADER, Header};

/// Bytes of the length before each frame.
const LENGTH: usize = 4;

/// The most that waits for the guest. passt drops what its socket does not take, and its TCP then waits for seconds, so
/// that this takes what several connections' windows hold; it costs memory only when it is filled.
const INBOX: usize = 2 << 20;

/// What is written at a time: the largest frame, or some forty of an ordinary network. Waiting for more would leave
/// passt idle meanwhile.
const OUTBOX: usize = 64 * 1024;

/// A connection to passt.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: UnixStream,
    inbox: Box<[u8]>,
    /// Where the bytes that were not given to the guest yet begin and end.
    unread: std::ops::Range<usize>,
    outbox: Vec<u8>,
    /// How much of the outbox the socket has taken.
    sent: usize,
}

impl Stream {
    pub(crate) fn new(socket: UnixStream) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            inbox: vec![0; INBOX].into_boxed_slice(),
            unread: 0..0,
            outbox: Vec::with_capacity(OUTBOX.saturating_add(MAX_FRAME)),
            sent: 0,
        })
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Returns the next whole frame that was read. passt has made its checksums itself, and nothing damages a frame
    /// between two processes.
    pub(crate) fn frame(&self) -> Result<Option<(Header, &[u8])>, Cut> {
        let bytes = self.inbox.get(self.unread.clone()).unwrap_or_default();
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(Cut::Impossible(length));
        }
        Ok(rest.get(..length).map(|frame| (Header::checked(), frame)))
    }

    /// Forgets a frame of `length` bytes that [`Stream::frame`] returned.
    pub(crate) fn forget_frame(&mut self, length: usize) {
        self.unread.start = self
            .unread
            .start
            .saturating_add(LENGTH)
            .saturating_add(length);
    }

    /// Reads more if there is room; returns whether there was any.
    pub(crate) fn fill(&mut self) -> Result<bool, Cut> {
        if self.unread.is_empty() || self.unread.start > INBOX / 2 {
            self.inbox.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        let room = self.inbox.get_mut(self.unread.end..).unwrap_or_default();
        if room.is_empty() {
            return Ok(false);
        }
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

    /// Returns whether no more can be read before frames are forgotten.
    pub(crate) fn is_full(&self) -> bool {
        self.unread.end == INBOX && self.unread.start <= INBOX / 2
    }

    /// Takes a frame of the guest's, header first, if there is room for it. One that may not leave is dropped.
    pub(crate) fn send(&mut self, request: &Buffers<'_>) -> Result<Outcome, Cut> {
        if self.outbox.len() >= OUTBOX && self.flush()? == Outcome::Full {
            return Ok(Outcome::Full);
        }
        let length = request.len().saturating_sub(HEADER);
        let start = self.outbox.len();
        self.outbox
            .extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        request.append_to(HEADER, &mut self.outbox);
        let header = Header(request.read_array(0).unwrap_or_default());
        let frame = self.outbox.get_mut(start.saturating_add(LENGTH)..);
        // Judged as it will be sent: with its checksum, which the guest may have placed anywhere.
        let good = frame.is_some_and(|frame| header.complete(frame) && may_leave(frame));
        if !good {
            limited!(warn, "the guest sent a frame that may not leave it");
            self.outbox.truncate(start);
        }
        Ok(Outcome::Sent)
    }

    /// Sends what the guest has given; returns whether the socket took all.
    pub(crate) fn flush(&mut self) -> Result<Outcome, Cut> {
        while let Some(rest @ [_, ..]) = self.outbox.get(self.sent..) {
            match self.socket.write(rest) {
                Ok(count) => self.sent = self.sent.saturating_add(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Outcome::Full),
                Err(error) => return Err(Cut::Failed(error)),
            }
        }
        self.outbox.clear();
        self.sent = 0;
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
        assert_eq!(stream.frame().unwrap().unwrap().1, b"abc");
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
