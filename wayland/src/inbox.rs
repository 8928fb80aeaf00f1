//! Splits the byte stream into frames on the receiving side without copying their payloads.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::frame::{FrameError, HEADER_LEN, MAX_PAYLOAD, parse_header};
use crate::socket::Read;

/// How much one read may take: two full slices of pixels.
const READ_LEN: usize = 512 * 1024;

/// How much it may take at first. Most programs never send or get more at once, and there may be many of them.
const FIRST_READ_LEN: usize = 16 * 1024;

/// Bytes received and not yet taken as frames.
#[derive(Debug, Default)]
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// A read has filled what there was: the next may take more.
    hungry: bool,
}

impl Inbox {
    /// Reads once from `link`.
    ///
    /// # Errors
    /// When the link fails otherwise than by closing.
    pub fn fill(&mut self, link: impl AsFd) -> io::Result<Read> {
        self.make_room();
        match recv(link, &mut self.buffer[self.end..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => Ok(Read::Closed),
            Ok((got, _)) => {
                self.end += got;
                self.hungry = self.end == self.buffer.len();
                Ok(Read::Bytes(got))
            }
            Err(Errno::AGAIN) => Ok(Read::Empty),
            Err(Errno::CONNRESET) => Ok(Read::Closed),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns kind and payload of the next whole frame, if there is one.
    ///
    /// # Errors
    /// When the stream declares a frame beyond the limit; it can't be followed after that.
    pub fn next_frame(&mut self) -> Result<Option<(u32, &[u8])>, FrameError> {
        let have = &self.buffer[self.start..self.end];
        let Some((header, rest)) = have.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let (len, kind) = parse_header(*header)?;
        if rest.len() < len {
            return Ok(None);
        }
        let payload = self.start + HEADER_LEN;
        self.start = payload + len;
        Ok(Some((kind, &self.buffer[payload..payload + len])))
    }

    /// Moves what is left to the front and makes sure that any legal frame fits behind it.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let usual = match self.buffer.len() {
            0 => FIRST_READ_LEN,
            len if self.hungry => (len * 2).min(READ_LEN),
            len => len.min(READ_LEN),
        };
        let needed = self.pending_frame_len().max(usual);
        if self.start > 0 && self.buffer.len() - self.start < needed {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        }
    }

    fn pending_frame_len(&self) -> usize {
        let have = &self.buffer[self.start..self.end];
        have.split_first_chunk::<HEADER_LEN>()
            .and_then(|(header, _)| parse_header(*header).ok())
            .map_or(0, |(len, _)| {
                (len + HEADER_LEN).min(MAX_PAYLOAD + HEADER_LEN)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use crate::socket;

    #[test]
    fn frames_split_by_the_stream_come_out_whole() {
        let (near, far) = socket::pair().unwrap();
        let mut bytes = Vec::new();
        Frame::DropPool(1).write(&mut bytes);
        Frame::Pipe(2, &[5; 40_000]).write(&mut bytes);
        let mut inbox = Inbox::default();
        let mut seen = Vec::new();
        for piece in bytes.chunks(9_999) {
            assert_eq!(socket::send_some(&near, piece).unwrap(), piece.len());
            assert_eq!(inbox.fill(&far).unwrap(), Read::Bytes(piece.len()));
            while let Some((kind, payload)) = inbox.next_frame().unwrap() {
                seen.push((kind, payload.len()));
            }
        }
        assert_eq!(seen, [(3, 4), (6, 40_004)]);
        drop(near);
        assert_eq!(inbox.fill(&far).unwrap(), Read::Closed);
    }
}
