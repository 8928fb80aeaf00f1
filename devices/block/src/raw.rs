//! A raw image: byte N of the disk is byte N of the file, and holes are zeroes that take no space.

use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use rustix::io::Errno;
use virtio::{Buffers, read_at, read_cached_at, write_at};

use crate::uring::Uring;

/// Bytes written at a time where file system or format cannot make zeroes by itself.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// An image, open for as much as the disk allows.
#[derive(Debug)]
pub(crate) struct Raw {
    file: File,
    /// Nothing where the kernel, or who configured it, forbids io_uring.
    uring: Option<Uring>,
}

impl Raw {
    pub(crate) fn new(file: File) -> Self {
        Self { file, uring: None }
    }

    /// Gets what lets several reads wait at once; to be called while the jail still allows it.
    pub(crate) fn start(&mut self) {
        match Uring::new(&self.file) {
            Ok(uring) => self.uring = Some(uring),
            Err(error) => tracing::debug!("reads wait for each other: no io_uring ({error})"),
        }
    }

    /// Fills `target` if that needs no waiting; returns whether it did.
    pub(crate) fn read_now(&self, target: &Buffers<'_>, offset: u64) -> bool {
        // Without a ring the read that waits comes next in any case.
        self.uring.is_some()
            && i64::try_from(offset).is_ok_and(|at| {
                read_cached_at(&self.file, target.slices(), at)
                    .is_ok_and(|count| count == target.len())
            })
    }

    /// Fills each target from its offset on, all at once if that is possible.
    pub(crate) fn read_all(&mut self, reads: &[(Buffers<'_>, u64)]) -> Vec<io::Result<()>> {
        let counts = match &mut self.uring {
            // One read gains nothing, and a system call is cheaper.
            Some(uring) if reads.len() > 1 => uring.read(reads),
            _ => Vec::new(),
        };
        let mut counts = counts.into_iter();
        let complete = |(target, offset): &(Buffers<'_>, u64)| {
            let count = counts.next().unwrap_or_default();
            // What came short or failed is tried again in the ordinary way, which knows why.
            if count == target.len() && count > 0 {
                Ok(())
            } else {
                self.read(target, *offset)
            }
        };
        reads.iter().map(complete).collect()
    }

    /// Returns the size in bytes as it is now; a block device's too.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        (&self.file).seek(SeekFrom::End(0))
    }

    /// Fills `target` from `offset` on.
    pub(crate) fn read(&self, target: &Buffers<'_>, offset: u64) -> io::Result<()> {
        whole(target, offset, ErrorKind::UnexpectedEof, |part, at| {
            read_at(&self.file, part.slices(), at)
        })
    }

    /// Writes `source` to `offset` and on.
    pub(crate) fn write(&self, source: &Buffers<'_>, offset: u64) -> io::Result<()> {
        whole(source, offset, ErrorKind::WriteZero, |part, at| {
            write_at(&self.file, part.slices(), at)
        })
    }

    /// Puts everything written so far on stable storage.
    pub(crate) fn flush(&self) -> io::Result<()> {
        Ok(fdatasync(&self.file)?)
    }

    /// Gives space back; what is read there afterwards is undefined, so that doing nothing is right too.
    pub(crate) fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        match punch(&self.file, offset, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Makes zeroes, as a hole if `unmap`, else in space that stays allocated if the file system can do that.
    pub(crate) fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        zero(&self.file, offset, length, unmap)
    }
}

/// Makes a hole of a part of a file.
pub(crate) fn punch(file: &File, offset: u64, length: u64) -> rustix::io::Result<()> {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, hole, offset, length)
}

/// Makes zeroes of a part of a file, in whichever way its file system has.
pub(crate) fn zero(file: &File, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
    let kept = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    let first = if unmap {
        punch(file, offset, length)
    } else {
        fallocate(file, kept, offset, length)
    };
    match first.or_else(|_| punch(file, offset, length)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            write_all_zeroes(offset, length, |piece, at| file.write_all_at(piece, at))
        }
        result => Ok(result?),
    }
}

/// Writes zeroes as data, by `write`, which gets pieces and where each goes.
pub(crate) fn write_all_zeroes(
    mut offset: u64,
    length: u64,
    write: impl Fn(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    let end = offset.saturating_add(length);
    while offset < end {
        let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let piece = ZEROES.get(..left.min(ZEROES.len())).unwrap_or(&ZEROES);
        write(piece, offset)?;
        offset = offset.saturating_add(piece.len() as u64);
    }
    Ok(())
}

/// Repeats a transfer that may do less than asked until all of `buffers` are through.
fn whole(
    buffers: &Buffers<'_>,
    offset: u64,
    short: ErrorKind,
    transfer: impl Fn(&Buffers<'_>, i64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0_usize;
    while done < buffers.len() {
        let at = i64::try_from(offset.saturating_add(done as u64));
        let at = at.map_err(|_beyond| io::Error::from(ErrorKind::InvalidInput))?;
        let rest;
        let part = if done == 0 {
            buffers
        } else {
            rest = buffers.part(done, buffers.len());
            &rest
        };
        match transfer(part, at) {
            Ok(0) => return Err(short.into()),
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
