//! What waits to go out on the stream, in order, on either side.
//!
//! Pixels wait as a description and are read from the client's file only when the link has room:
//! a client may not touch a buffer before its release, which can't come before the commit that
//! follows these rows. So a 4K picture costs one slice of memory, and a slow link needs no copy.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use crate::codec::Codec;
use crate::frame::{Frame, MAX_ROWS_LEN};
use crate::rows::Rows;
use crate::socket;

/// Above this many waiting bytes the producer is to stop: the limit of the design for one client.
pub const CONGESTED_LEN: u64 = 4 * 1024 * 1024;

#[derive(Debug)]
enum Item {
    Bytes(Vec<u8>),
    Rows(Rows),
}

/// The ordered queue of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    items: VecDeque<Item>,
    waiting: u64,
    staging: Staging,
    codec: Codec,
    slice: Vec<u8>,
    truncated: Option<u32>,
    pixel_bytes: u64,
}

/// Bytes in the order of the link. The buffer stays initialised, so that pixels are read right
/// into it without being zeroed first.
#[derive(Debug, Default)]
struct Staging {
    buffer: Vec<u8>,
    filled: usize,
    sent: usize,
}

impl Staging {
    fn is_sent(&self) -> bool {
        self.sent == self.filled
    }

    fn space(&mut self, len: usize) -> &mut [u8] {
        let start = self.filled;
        self.filled += len;
        if self.buffer.len() < self.filled {
            self.buffer.resize(self.filled.next_power_of_two(), 0);
        }
        &mut self.buffer[start..self.filled]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
    }
}

impl Outbox {
    /// Returns an empty queue that packs pixels with `codec`.
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            ..Self::default()
        }
    }

    /// Queues one frame.
    pub fn frame(&mut self, frame: &Frame<'_>) {
        if !matches!(self.items.back(), Some(Item::Bytes(_))) {
            self.items.push_back(Item::Bytes(Vec::new()));
        }
        if let Some(Item::Bytes(bytes)) = self.items.back_mut() {
            let before = bytes.len();
            frame.write(bytes);
            self.waiting += (bytes.len() - before) as u64;
        }
    }

    /// Queues pixels.
    pub fn rows(&mut self, rows: Rows) {
        self.waiting += rows.len();
        self.items.push_back(Item::Rows(rows));
    }

    /// Returns whether the producer should pause.
    #[must_use]
    pub fn congested(&self) -> bool {
        self.waiting > CONGESTED_LEN
    }

    /// Forgets what waits: nobody takes it any more.
    pub fn abandon(&mut self) {
        self.items.clear();
        self.waiting = 0;
        self.staging.sent = self.staging.filled;
    }

    /// Returns whether everything has been sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.staging.is_sent()
    }

    /// Returns the pool whose file turned out shorter than the client had said, once.
    pub fn take_truncated(&mut self) -> Option<u32> {
        self.truncated.take()
    }

    /// Returns how many pixel bytes have been read so far.
    #[must_use]
    pub fn pixel_bytes(&self) -> u64 {
        self.pixel_bytes
    }

    /// Sends until the link is full or nothing is left.
    ///
    /// # Errors
    /// When the link fails or a client's file can't be read at all.
    pub fn flush(&mut self, link: impl AsFd) -> io::Result<()> {
        loop {
            if self.staging.is_sent() {
                (self.staging.filled, self.staging.sent) = (0, 0);
                self.stage()?;
                if self.staging.is_sent() {
                    return Ok(());
                }
            }
            let Staging {
                buffer,
                filled,
                sent,
            } = &mut self.staging;
            let took = socket::send_some(&link, &buffer[*sent..*filled])?;
            if took == 0 {
                return Ok(());
            }
            *sent += took;
        }
    }

    /// Moves queued items into the staging buffer, up to about one slice.
    fn stage(&mut self) -> io::Result<()> {
        while self.staging.filled < MAX_ROWS_LEN {
            match self.items.pop_front() {
                None => break,
                Some(Item::Bytes(bytes)) => {
                    self.waiting -= bytes.len() as u64;
                    self.staging.push(&bytes);
                }
                Some(Item::Rows(mut rows)) => {
                    self.waiting -= rows.len();
                    if !rows.is_empty() {
                        self.stage_slice(&mut rows)?;
                        self.waiting += rows.len();
                    }
                    if !rows.is_empty() {
                        self.items.push_front(Item::Rows(rows));
                    }
                }
            }
        }
        Ok(())
    }

    fn stage_slice(&mut self, rows: &mut Rows) -> io::Result<()> {
        let mut head = rows.take_slice();
        let len = head.row_len as usize * head.rows as usize;
        self.pixel_bytes += len as u64;
        let mut header = Vec::with_capacity(64);
        let whole = if self.codec == Codec::None {
            head.write_frame_head(&mut header, len);
            self.staging.push(&header);
            rows.read(&head, self.staging.space(len))?
        } else {
            self.slice.resize(MAX_ROWS_LEN, 0);
            let raw = &mut self.slice[..len];
            let whole = rows.read(&head, raw)?;
            let packed = lz4_flex::block::compress(raw);
            let bytes: &[u8] = if packed.len() < len {
                head.codec = Codec::Lz4.number();
                &packed
            } else {
                raw
            };
            head.write_frame_head(&mut header, bytes.len());
            self.staging.push(&header);
            self.staging.push(bytes);
            whole
        };
        if !whole {
            self.truncated = Some(rows.pool());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
