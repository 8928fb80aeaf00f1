//! The frames of the stream channel, read and written by both ends; every length is checked here.
//!
//! A frame is a header of eight bytes, `payload length: u32` and `kind: u32`, and a payload, all little
//! endian. Wayland bytes keep the client's order; pixel rows always travel before the bytes
//! that hold the `wl_surface.commit` they belong to.

use thiserror::Error;

/// Bytes before every payload.
pub const HEADER_LEN: usize = 8;

/// The most pixel bytes in one frame: a slice that stays in the L2 cache and keeps other frames of
/// the same client from waiting behind a whole picture.
pub const MAX_ROWS_LEN: usize = 256 * 1024;

/// The most Wayland bytes in one frame; twice the largest read an end makes.
pub const MAX_WAYLAND_LEN: usize = 64 * 1024;

/// The most inline bytes for one descriptor. Real keymaps are 20–70 KiB; 1 MiB is beyond any.
pub const MAX_CONTENTS_LEN: usize = 1024 * 1024;

/// The most clipboard bytes in one frame.
pub const MAX_PIPE_LEN: usize = 64 * 1024;

/// The most descriptors with one batch of Wayland bytes: libwayland's own limit, and all that one
/// control buffer of wl-proxy can take.
pub const MAX_FDS: usize = 28;

/// The longest label a client may give itself in its greeting.
pub const MAX_LABEL_LEN: usize = 64;

/// The largest payload any frame may declare.
pub const MAX_PAYLOAD: usize = MAX_CONTENTS_LEN + MAX_WAYLAND_LEN + 4096;

/// Opens every greeting, so that a stranger on the port is recognised at once.
const MAGIC: u32 = u32::from_le_bytes(*b"TWLF");

/// The version of this language; both ends ship together, so any other one is refused.
pub const VERSION: u32 = 1;

const ROWS_FIXED: usize = 24;
const CONTENTS_TAG: u32 = 2;

/// A rectangle of pixels inside a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsHead {
    /// The pool the rows belong to.
    pub pool: u32,
    /// Where the first row starts in the pool, in bytes.
    pub offset: u32,
    /// From the start of one row to the start of the next, in bytes.
    pub stride: u32,
    /// Bytes in one row.
    pub row_len: u32,
    /// How many rows.
    pub rows: u32,
    /// How the rows are packed, see [`crate::codec::Codec`].
    pub codec: u32,
}

/// What stands for a descriptor on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdDesc<'a> {
    /// A shared memory pool announced before.
    Pool(u32),
    /// The write end of a pipe; data comes back in `Pipe` frames under this number.
    Pipe(u32),
    /// A sealed file with these contents, such as a keymap.
    Contents(&'a [u8]),
}

/// One message of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The greeting, first in each direction.
    Hello {
        /// The sender's `CLOCK_MONOTONIC`, in nanoseconds.
        clock_ns: u64,
        /// A short name for logs.
        label: &'a str,
    },
    /// Creates pool `id` or grows it to `size` bytes.
    Pool {
        /// The pool's number.
        id: u32,
        /// Its size in bytes.
        size: u32,
    },
    /// The guest needs pool `id` no more.
    DropPool(u32),
    /// The guest has no use for these bytes of pool `id` any more.
    Discard {
        /// The pool.
        id: u32,
        /// Where they start.
        offset: u32,
        /// How many.
        len: u32,
    },
    /// Changed pixels.
    Rows(RowsHead, &'a [u8]),
    /// Wayland bytes and their descriptors.
    Wayland(Vec<FdDesc<'a>>, &'a [u8]),
    /// Data for the pipe `id`.
    Pipe(u32, &'a [u8]),
    /// The writer of pipe `id` has finished.
    PipeEnd(u32),
    /// The reader of pipe `id` is gone.
    PipeBroken(u32),
    /// The reader of pipe `id` has room for that many more bytes.
    PipeCredit(u32, u32),
    /// All pixels of the commit `seq` have been sent.
    CommitSent(u32),
    /// The pixels of the commit `seq` are in place; `clock_ns` is the host's `CLOCK_MONOTONIC`.
    CommitSeen {
        /// Which commit.
        seq: u32,
        /// The host's clock in nanoseconds.
        clock_ns: u64,
    },
    /// The Wayland connection has ended; pipes may still drain.
    Goodbye,
}

/// Bytes that are not a frame of this language.
#[derive(Debug, Error)]
pub enum FrameError {
    /// A declared length beyond the limit of its kind.
    #[error("{what} of {len} bytes is over the limit of {max}")]
    TooLong {
        /// What was too long.
        what: &'static str,
        /// Its declared length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A payload that ends before its fields do, or goes on after them.
    #[error("frame of kind {0} has the wrong length")]
    WrongLength(u32),
    /// A kind or tag number this version does not know.
    #[error("unknown frame kind or tag {0}")]
    UnknownKind(u32),
    /// A greeting from another program or version.
    #[error("the other end does not speak version {VERSION} of the window protocol")]
    Greeting,
    /// A label that is not printable text.
    #[error("label is not printable text")]
    Label,
}

struct Fields<'a> {
    kind: u32,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn u32(&mut self) -> Result<u32, FrameError> {
        let (word, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(FrameError::WrongLength(self.kind))?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*word))
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        let low = u64::from(self.u32()?);
        Ok(low | u64::from(self.u32()?) << 32)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], FrameError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(FrameError::WrongLength(self.kind))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn end(&self) -> Result<(), FrameError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FrameError::WrongLength(self.kind))
        }
    }
}

fn limit(what: &'static str, len: usize, max: usize) -> Result<(), FrameError> {
    if len > max {
        Err(FrameError::TooLong { what, len, max })
    } else {
        Ok(())
    }
}

/// Returns the payload length and kind that a header declares.
///
/// # Errors
/// When the length is beyond [`MAX_PAYLOAD`].
pub fn parse_header(header: [u8; HEADER_LEN]) -> Result<(usize, u32), FrameError> {
    let [a, b, c, d, e, f, g, h] = header;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    limit("frame", len, MAX_PAYLOAD)?;
    Ok((len, u32::from_le_bytes([e, f, g, h])))
}

impl<'a> Frame<'a> {
    /// Returns the frame that a payload of `kind` holds.
    ///
    /// # Errors
    /// When a length, kind or tag is not one this language allows.
    pub fn parse(kind: u32, payload: &'a [u8]) -> Result<Self, FrameError> {
        let mut fields = Fields {
            kind,
            rest: payload,
        };
        let frame = match kind {
            1 => parse_hello(&mut fields)?,
            2 => Self::Pool {
                id: fields.u32()?,
                size: fields.u32()?,
            },
            3 => Self::DropPool(fields.u32()?),
            4 => parse_rows(&mut fields)?,
            5 => parse_wayland(&mut fields)?,
            6 => {
                let id = fields.u32()?;
                limit("pipe data", fields.rest.len(), MAX_PIPE_LEN)?;
                Self::Pipe(id, fields.bytes(fields.rest.len())?)
            }
            7 => Self::PipeEnd(fields.u32()?),
            8 => Self::PipeBroken(fields.u32()?),
            9 => Self::PipeCredit(fields.u32()?, fields.u32()?),
            10 => Self::CommitSent(fields.u32()?),
            11 => Self::CommitSeen {
                seq: fields.u32()?,
                clock_ns: fields.u64()?,
            },
            12 => Self::Goodbye,
            13 => Self::Discard {
                id: fields.u32()?,
                offset: fields.u32()?,
                len: fields.u32()?,
            },
            other => return Err(FrameError::UnknownKind(other)),
        };
        fields.end()?;
        Ok(frame)
    }

    /// Appends the frame to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        let kind: u32 = match self {
            Self::Hello { clock_ns, label } => {
                words(out, &[MAGIC, VERSION]);
                out.extend_from_slice(&clock_ns.to_le_bytes());
                out.extend_from_slice(label.as_bytes());
                1
            }
            Self::Pool { id, size } => words(out, &[*id, *size]).kind(2),
            Self::DropPool(id) => words(out, &[*id]).kind(3),
            Self::Rows(head, bytes) => {
                head.write(out);
                out.extend_from_slice(bytes);
                4
            }
            Self::Wayland(fds, bytes) => {
                write_fds(out, fds);
                out.extend_from_slice(bytes);
                5
            }
            Self::Pipe(id, bytes) => {
                words(out, &[*id]);
                out.extend_from_slice(bytes);
                6
            }
            Self::PipeEnd(id) => words(out, &[*id]).kind(7),
            Self::PipeBroken(id) => words(out, &[*id]).kind(8),
            Self::PipeCredit(id, more) => words(out, &[*id, *more]).kind(9),
            Self::CommitSent(seq) => words(out, &[*seq]).kind(10),
            Self::CommitSeen { seq, clock_ns } => {
                words(out, &[*seq]);
                out.extend_from_slice(&clock_ns.to_le_bytes());
                11
            }
            Self::Goodbye => 12,
            Self::Discard { id, offset, len } => words(out, &[*id, *offset, *len]).kind(13),
        };
        finish(out, start, kind);
    }
}

impl RowsHead {
    /// Appends the header of a `Rows` frame whose `packed_len` bytes the caller appends next.
    pub fn write_frame_head(&self, out: &mut Vec<u8>, packed_len: usize) {
        let len = u32::try_from(ROWS_FIXED + packed_len).expect("slices are at most MAX_ROWS_LEN");
        words(out, &[len, 4]);
        self.write(out);
    }

    fn write(&self, out: &mut Vec<u8>) {
        words(
            out,
            &[
                self.pool,
                self.offset,
                self.stride,
                self.row_len,
                self.rows,
                self.codec,
            ],
        );
    }
}

fn parse_hello<'a>(fields: &mut Fields<'a>) -> Result<Frame<'a>, FrameError> {
    if fields.u32()? != MAGIC || fields.u32()? != VERSION {
        return Err(FrameError::Greeting);
    }
    let clock_ns = fields.u64()?;
    limit("label", fields.rest.len(), MAX_LABEL_LEN)?;
    let label = str::from_utf8(fields.bytes(fields.rest.len())?).map_err(|_| FrameError::Label)?;
    if label.chars().any(char::is_control) {
        return Err(FrameError::Label);
    }
    Ok(Frame::Hello { clock_ns, label })
}

fn parse_rows<'a>(fields: &mut Fields<'a>) -> Result<Frame<'a>, FrameError> {
    let head = RowsHead {
        pool: fields.u32()?,
        offset: fields.u32()?,
        stride: fields.u32()?,
        row_len: fields.u32()?,
        rows: fields.u32()?,
        codec: fields.u32()?,
    };
    let unpacked = (head.rows as usize).saturating_mul(head.row_len as usize);
    limit("rows", unpacked, MAX_ROWS_LEN)?;
    limit(
        "packed rows",
        fields.rest.len(),
        lz4_flex::block::get_maximum_output_size(MAX_ROWS_LEN),
    )?;
    Ok(Frame::Rows(head, fields.bytes(fields.rest.len())?))
}

fn parse_wayland<'a>(fields: &mut Fields<'a>) -> Result<Frame<'a>, FrameError> {
    let count = fields.u32()? as usize;
    limit("descriptor list", count, MAX_FDS)?;
    let mut fds = Vec::with_capacity(count);
    for _ in 0..count {
        let (tag, value) = (fields.u32()?, fields.u32()?);
        fds.push(match tag {
            0 => FdDesc::Pool(value),
            1 => FdDesc::Pipe(value),
            CONTENTS_TAG => {
                limit("descriptor contents", value as usize, MAX_CONTENTS_LEN)?;
                FdDesc::Contents(fields.bytes(value as usize)?)
            }
            other => return Err(FrameError::UnknownKind(other)),
        });
    }
    limit("wayland data", fields.rest.len(), MAX_WAYLAND_LEN)?;
    Ok(Frame::Wayland(fds, fields.bytes(fields.rest.len())?))
}

fn write_fds(out: &mut Vec<u8>, fds: &[FdDesc<'_>]) {
    words(
        out,
        &[u32::try_from(fds.len()).expect("at most MAX_FDS descriptors")],
    );
    for fd in fds {
        match fd {
            FdDesc::Pool(id) => words(out, &[0, *id]),
            FdDesc::Pipe(id) => words(out, &[1, *id]),
            FdDesc::Contents(bytes) => {
                let len = u32::try_from(bytes.len()).expect("at most MAX_CONTENTS_LEN");
                words(out, &[CONTENTS_TAG, len]);
                out.extend_from_slice(bytes);
                Written
            }
        };
    }
}

/// Lets a frame of plain words be written and named in one expression.
struct Written;

impl Written {
    fn kind(self, kind: u32) -> u32 {
        kind
    }
}

fn words(out: &mut Vec<u8>, words: &[u32]) -> Written {
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
    Written
}

fn finish(out: &mut [u8], start: usize, kind: u32) {
    let len = u32::try_from(out.len() - start - HEADER_LEN).expect("writers keep the limits");
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&kind.to_le_bytes());
}

#[cfg(test)]
mod tests;
