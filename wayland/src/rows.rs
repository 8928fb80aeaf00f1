//! Pixels on the client's side that are to be sent: which bytes of which file, and how to read them.
//!
//! Files are read with `pread`, never mapped: a client may truncate its file at any moment, and a
//! mapping would turn that into a SIGBUS in this process.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::Errno;

use crate::codec::Codec;
use crate::frame::{MAX_ROWS_LEN, RowsHead};

/// Rows at least this part of the stride wide are sent with the gaps between them, since one long
/// read is cheaper than many short ones.
const WIDE_PART: u32 = 2;

/// Pixels to be read from a client's file, slice by slice.
#[derive(Debug, Clone)]
pub struct Rows {
    file: Rc<OwnedFd>,
    pool: u32,
    offset: u64,
    shape: Shape,
}

/// A rectangle as a client describes it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Where the first row starts in the pool.
    pub offset: u32,
    /// From row to row.
    pub stride: u32,
    /// Bytes in a row.
    pub row_len: u32,
    /// How many rows.
    pub rows: u32,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Run {
        len: u64,
    },
    Grid {
        stride: u32,
        row_len: u32,
        rows: u32,
    },
}

impl Rows {
    /// Returns the pixels of `grid` in `file`, which the other end knows as `pool`.
    #[must_use]
    pub fn new(file: Rc<OwnedFd>, pool: u32, grid: Grid) -> Self {
        let Grid {
            offset,
            stride,
            row_len,
            rows,
        } = grid;
        let wide = row_len >= stride / WIDE_PART || row_len as usize > MAX_ROWS_LEN;
        let shape = if rows == 0 || row_len == 0 {
            Shape::Run { len: 0 }
        } else if rows == 1 || wide {
            Shape::Run {
                len: u64::from(stride) * u64::from(rows - 1) + u64::from(row_len),
            }
        } else {
            Shape::Grid {
                stride,
                row_len,
                rows,
            }
        };
        Self {
            file,
            pool,
            offset: u64::from(offset),
            shape,
        }
    }

    /// Returns how many bytes are left to send.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self.shape {
            Shape::Run { len } => len,
            Shape::Grid { row_len, rows, .. } => u64::from(row_len) * u64::from(rows),
        }
    }

    /// Returns whether nothing is left to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number by which the other end knows the file.
    #[must_use]
    pub fn pool(&self) -> u32 {
        self.pool
    }

    /// Cuts at most one slice off the front.
    pub fn take_slice(&mut self) -> RowsHead {
        let offset = u32::try_from(self.offset).unwrap_or(u32::MAX);
        let (stride, row_len, rows) = match &mut self.shape {
            Shape::Run { len } => {
                let taken = (*len).min(MAX_ROWS_LEN as u64);
                *len -= taken;
                self.offset += taken;
                let taken = u32::try_from(taken).expect("a slice is far below 4 GiB");
                (taken, taken, 1)
            }
            Shape::Grid {
                stride,
                row_len,
                rows,
            } => {
                let max = u32::try_from(MAX_ROWS_LEN).expect("a slice is far below 4 GiB");
                let taken = (max / *row_len).clamp(1, *rows);
                *rows -= taken;
                self.offset += u64::from(taken) * u64::from(*stride);
                (*stride, *row_len, taken)
            }
        };
        let codec = Codec::None.number();
        RowsHead {
            pool: self.pool,
            offset,
            stride,
            row_len,
            rows,
            codec,
        }
    }

    /// Reads the pixels of one slice into `out`; returns false if the file ends before they do, and
    /// leaves zeros in their place.
    ///
    /// # Errors
    /// When the file can't be read at all.
    pub fn read(&self, slice: &RowsHead, out: &mut [u8]) -> io::Result<bool> {
        let mut whole = true;
        let mut at = u64::from(slice.offset);
        for row in out.chunks_mut((slice.row_len as usize).max(1)) {
            whole &= read_exact_at(&self.file, row, at)?;
            at += u64::from(slice.stride);
        }
        Ok(whole)
    }
}

fn read_exact_at(file: &OwnedFd, out: &mut [u8], mut at: u64) -> io::Result<bool> {
    let mut filled = 0;
    while filled < out.len() {
        match rustix::io::pread(file, &mut out[filled..], at) {
            Ok(0) => {
                out[filled..].fill(0);
                return Ok(false);
            }
            Ok(got) => {
                filled += got;
                at += got as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}
