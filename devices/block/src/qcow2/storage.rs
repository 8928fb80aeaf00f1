//! A file as imago uses it: by offset, without a name, and never made shorter.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: imago's trait has methods that only it may call"
)]

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;
use rustix::fs::fdatasync;
use rustix::io::{Errno, preadv, pwritev};
use virtio::MAX_VECTORS;

use crate::raw;

/// Space comes back in blocks of the host's file systems.
const BLOCK: usize = 4096;

/// A file.
#[derive(Debug)]
pub(super) struct Storage {
    file: File,
    writable: bool,
    bytes: AtomicU64,
    helper: CommonStorageHelper,
}

impl Storage {
    pub(super) fn new(mut file: File, writable: bool) -> io::Result<Self> {
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file,
            writable,
            bytes: AtomicU64::new(bytes),
            helper: CommonStorageHelper::default(),
        })
    }

    /// Takes note that the file reaches to `end`.
    fn reaches(&self, end: u64) {
        self.bytes.fetch_max(end, Ordering::Relaxed);
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.writable {
            "image"
        } else {
            "read-only image"
        })
    }
}

impl imago::Storage for Storage {
    fn zero_align(&self) -> usize {
        BLOCK
    }

    fn discard_align(&self) -> usize {
        BLOCK
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes.load(Ordering::Relaxed))
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, mut offset: u64) -> io::Result<()> {
        let mut slices = bufv.into_inner();
        let mut rest: &mut [IoSliceMut<'_>] = &mut slices;
        IoSliceMut::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let most = rest.len().min(MAX_VECTORS);
            let count = match preadv(&self.file, rest.get_mut(..most).unwrap_or_default(), offset) {
                Ok(0) => {
                    // Behind the file's end is nothing, which reads as zeroes.
                    rest.iter_mut().for_each(|slice| slice.fill(0));
                    return Ok(());
                }
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            IoSliceMut::advance_slices(&mut rest, count);
            offset = offset.saturating_add(count as u64);
        }
        Ok(())
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, mut offset: u64) -> io::Result<()> {
        let mut slices = bufv.into_inner();
        let mut rest: &mut [IoSlice<'_>] = &mut slices;
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let most = rest.len().min(MAX_VECTORS);
            let count = match pwritev(&self.file, rest.get(..most).unwrap_or_default(), offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            IoSlice::advance_slices(&mut rest, count);
            offset = offset.saturating_add(count as u64);
            self.reaches(offset);
        }
        Ok(())
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        let Some(last) = offset.saturating_add(length).checked_sub(1) else {
            return Ok(());
        };
        if length > 0 && last >= self.bytes.load(Ordering::Relaxed) {
            // The jail lets no file be cut or stretched by its length, so a byte is written at the new end.
            self.file.write_all_at(&[0], last)?;
            self.reaches(last.saturating_add(1));
        }
        if length > 0 {
            raw::zero(&self.file, offset, length, true)?;
        }
        Ok(())
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: the same contract.
        unsafe { self.pure_write_zeroes(offset, length) }
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        match raw::punch(&self.file, offset, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fdatasync(&self.file)?)
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }
}
