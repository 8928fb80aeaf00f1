//! The image behind a disk, whatever its layout.

use std::io;

use virtio::Buffers;

use crate::qcow2::Qcow2;
use crate::raw::Raw;

/// An image.
#[derive(Debug)]
pub(crate) enum Image {
    /// The bytes of the disk.
    Raw(Box<Raw>),
    /// Clusters that are found through tables.
    Qcow2(Box<Qcow2>),
}

impl Image {
    /// Gets what a jail forbids to get later.
    pub(crate) fn start(&mut self) {
        match self {
            Self::Raw(raw) => raw.start(),
            Self::Qcow2(_) => {}
        }
    }

    /// Returns the disk's size in bytes as it is now.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        match self {
            Self::Raw(raw) => raw.bytes(),
            Self::Qcow2(qcow2) => Ok(qcow2.bytes()),
        }
    }

    /// Fills `target` from `offset` on if that needs no waiting; returns whether it did.
    pub(crate) fn read_now(&self, target: &Buffers<'_>, offset: u64) -> bool {
        match self {
            Self::Raw(raw) => raw.read_now(target, offset),
            Self::Qcow2(_) => false,
        }
    }

    /// Fills each target from its offset on; all targets are on the disk.
    pub(crate) fn read_all(&mut self, reads: &[(Buffers<'_>, u64)]) -> Vec<io::Result<()>> {
        match self {
            Self::Raw(raw) => raw.read_all(reads),
            Self::Qcow2(qcow2) => {
                let one = |(target, offset): &(Buffers<'_>, u64)| qcow2.read(target, *offset);
                reads.iter().map(one).collect()
            }
        }
    }

    /// Writes `source` to `offset` and on.
    pub(crate) fn write(&self, source: &Buffers<'_>, offset: u64) -> io::Result<()> {
        match self {
            Self::Raw(raw) => raw.write(source, offset),
            Self::Qcow2(qcow2) => qcow2.write(source, offset),
        }
    }

    /// Puts everything written so far on stable storage.
    pub(crate) fn flush(&self) -> io::Result<()> {
        match self {
            Self::Raw(raw) => raw.flush(),
            Self::Qcow2(qcow2) => qcow2.flush(),
        }
    }

    /// Gives space back.
    pub(crate) fn discard(&mut self, offset: u64, length: u64) -> io::Result<()> {
        match self {
            Self::Raw(raw) => raw.discard(offset, length),
            Self::Qcow2(qcow2) => qcow2.discard(offset, length),
        }
    }

    /// Makes zeroes, and gives the space back if `unmap`.
    pub(crate) fn write_zeroes(&mut self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        match self {
            Self::Raw(raw) => raw.write_zeroes(offset, length, unmap),
            Self::Qcow2(qcow2) => qcow2.write_zeroes(offset, length, unmap),
        }
    }
}
