//! A qcow2 image: the crate imago reads and writes its tables; what it may do with files is decided here.
//!
//! An image may come from anywhere. Its header is checked against limits before imago sees it, and the names of files in it
//! mean nothing: what lies below the image is what was handed over as open files.

mod counts;
mod header;
mod storage;

use std::fs::File;
use std::io;

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};
use virtio::Buffers;

use self::header::Header;
use self::storage::Storage;
use crate::{Format, Layer, raw};

/// An image that is open, and through it those below.
#[derive(Debug)]
pub(crate) struct Qcow2 {
    access: FormatAccess<Storage>,
}

impl Qcow2 {
    /// Opens `image` upon `below`, the nearest layer first.
    pub(crate) fn open(image: File, writable: bool, below: Vec<Layer>) -> io::Result<Self> {
        let mut base = None;
        for layer in below.into_iter().rev() {
            base = Some(match layer.format {
                Format::Raw if base.is_some() => {
                    return Err(io::Error::other("nothing can lie below a raw image"));
                }
                Format::Raw => {
                    let storage = Storage::new(layer.image, false)?;
                    let raw = imago::raw::Raw::builder(storage);
                    FormatAccess::new(raw.open(DenyImplicitOpenGate::default())?)
                }
                Format::Qcow2 => open(layer.image, false, base)?,
            });
        }
        let access = open(image, writable, base)?;
        Ok(Self { access })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.access.size()
    }

    pub(crate) fn read(&self, target: &Buffers<'_>, offset: u64) -> io::Result<()> {
        let (vector, _mapped) = IoVectorMut::from_volatile_slice(target.slices());
        self.access.readv(vector, offset)
    }

    pub(crate) fn write(&self, source: &Buffers<'_>, offset: u64) -> io::Result<()> {
        let (vector, _mapped) = IoVector::from_volatile_slice(source.slices());
        self.access.writev(vector, offset)
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        // First what imago keeps of the tables, then what the kernel keeps of the file.
        self.access.flush()?;
        self.access.sync()
    }

    /// Gives space back; what is read there afterwards is undefined, so that doing nothing is right too.
    pub(crate) fn discard(&mut self, offset: u64, length: u64) -> io::Result<()> {
        unless_unsupported(self.access.discard_to_any(offset, length)).map(drop)
    }

    pub(crate) fn write_zeroes(&mut self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        let done = if unmap {
            self.access.discard_to_zero(offset, length)
        } else {
            self.access.write_zeroes(offset, length)
        };
        if !unless_unsupported(done)? {
            // Version 2 of the format knows no zeroes but data.
            raw::write_all_zeroes(offset, length, |piece, at| self.access.write(piece, at))?;
        }
        Ok(())
    }
}

/// Returns whether it was done, and an error only if the image could have.
fn unless_unsupported(done: io::Result<()>) -> io::Result<bool> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
        done => done.map(|()| true),
    }
}

/// Opens one layer.
fn open(
    image: File,
    writable: bool,
    base: Option<FormatAccess<Storage>>,
) -> io::Result<FormatAccess<Storage>> {
    let header = Header::read(&image)?;
    if header.has_backing != base.is_some() {
        let problem = if base.is_some() {
            "an image was handed over as the one below a qcow2 image that has none"
        } else {
            "the qcow2 image lies upon another, which was not handed over"
        };
        return Err(io::Error::other(problem));
    }
    if writable {
        counts::check(&image, &header)?;
    }
    let storage = Storage::new(image, writable)?;
    let builder = imago::qcow2::Qcow2::<Storage>::builder(storage).write(writable);
    let qcow2 = builder
        .backing(base)
        .open(DenyImplicitOpenGate::default())?;
    Ok(FormatAccess::new(qcow2))
}
