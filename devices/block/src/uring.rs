//! Several reads of the image at once, so that those the page cache does not have wait together.
//!
//! Only reads: a write goes into the page cache and seldom waits, and on some file systems io_uring would hand it to a
//! thread, of which a jail allows none. The ring is made before the jail is locked, and restricts itself then: it
//! can read from the one file it was given and do nothing else, whoever fills it.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: hands addresses of guest memory to io_uring"
)]

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode, types};
use virtio::{Buffers, vectors};

/// The most reads at once; a device takes no more requests than that in one go.
const ENTRIES: u32 = 64;

/// The place of the image among the ring's files.
const IMAGE: types::Fixed = types::Fixed(0);

/// A ring that can only read.
pub(crate) struct Uring(IoUring);

impl Uring {
    /// Makes a ring for `file`.
    ///
    /// # Errors
    /// The kernel is too old, or does not allow it.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        let ring = IoUring::builder().setup_r_disabled().build(ENTRIES)?;
        let submitter = ring.submitter();
        submitter.register_files(&[file.as_raw_fd()])?;
        let mut only = [
            Restriction::sqe_op(opcode::Readv::CODE),
            Restriction::sqe_flags_required(Flags::FIXED_FILE.bits()),
        ];
        submitter.register_restrictions(&mut only)?;
        submitter.register_enable_rings()?;
        Ok(Self(ring))
    }

    /// Reads once into each target; returns how many bytes each got, in their order, 0 where there was an error.
    pub(crate) fn read(&mut self, reads: &[(Buffers<'_>, u64)]) -> Vec<usize> {
        let mut counts = vec![0; reads.len()];
        let places: Vec<Vec<libc::iovec>> = reads
            .iter()
            .map(|(target, _)| vectors(target.slices()))
            .collect();
        let mut under_way = 0_usize;
        for (number, (place, (_, offset))) in places.iter().zip(reads).enumerate() {
            let length = u32::try_from(place.len()).expect("vectors() returns at most MAX_VECTORS");
            let entry = opcode::Readv::new(IMAGE, place.as_ptr(), length)
                .offset(*offset)
                .build()
                .user_data(number as u64);
            // SAFETY: the vectors live in `places` and point into guest memory that is mapped for as long as `reads` is
            // borrowed; this function returns only when every read has ended.
            if unsafe { self.0.submission().push(&entry) }.is_err() {
                break;
            }
            under_way = under_way.saturating_add(1);
        }
        while under_way > 0 {
            match self.0.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if is_transient(&error) => {}
                // Returning would leave the kernel with addresses that others use afterwards.
                Err(error) => panic!("the kernel takes reads and does not end them: {error}"),
            }
            for done in self.0.completion() {
                under_way = under_way.saturating_sub(1);
                let count = usize::try_from(done.result()).unwrap_or_default();
                if let Some(slot) = usize::try_from(done.user_data())
                    .ok()
                    .and_then(|number| counts.get_mut(number))
                {
                    *slot = count;
                }
            }
        }
        counts
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Uring")
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::ResourceBusy
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the kernel has no io_uring, reads are done one by one, which the tests of requests show.
    fn ring() -> Option<Uring> {
        Uring::new(&tempfile::tempfile().unwrap()).ok()
    }

    #[test]
    fn nothing_but_reads_of_the_image_is_taken() {
        let Some(mut uring) = ring() else { return };
        let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), c"/etc/passwd".as_ptr());
        let mut byte = [0_u8; 1];
        let other = opcode::Read::new(types::Fd(0), byte.as_mut_ptr(), 1);
        let write = opcode::Write::new(IMAGE, byte.as_ptr(), 1);
        for entry in [open.build(), other.build(), write.build()] {
            // SAFETY: the path and the byte outlive the wait below.
            unsafe { uring.0.submission().push(&entry) }.unwrap();
            uring.0.submit_and_wait(1).unwrap();
            let result = uring.0.completion().next().unwrap().result();
            assert_eq!(result, -libc::EACCES);
        }
    }
}
