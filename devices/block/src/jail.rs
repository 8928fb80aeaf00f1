//! What the disk daemon may do: read, write, flush and punch holes into the one image it was given.

use libc::{
    SYS_fallocate, SYS_fdatasync, SYS_io_uring_enter, SYS_lseek, SYS_preadv, SYS_preadv2,
    SYS_pwrite64, SYS_pwritev,
};
use sys::jail::{Allowed, Root};
use virtio::launch::Policy;

/// System calls beside the common ones. The guest's memory has no descriptor here, so none of them reaches it.
const ALLOWED: &[Allowed] = &[
    Allowed::call(SYS_fallocate),
    Allowed::call(SYS_fdatasync),
    // The one ring was made before and can only read the image (uring.rs); no other can be made.
    Allowed::call(SYS_io_uring_enter),
    Allowed::call(SYS_lseek),
    Allowed::call(SYS_preadv),
    Allowed::call(SYS_preadv2),
    Allowed::call(SYS_pwrite64),
    Allowed::call(SYS_pwritev),
];

/// The image, the ring, and the images below (`spec::device::MAX_BACKING`).
const DESCRIPTORS: u64 = 2 + 8;

/// Returns the daemon's jail.
#[must_use]
pub fn policy() -> Policy {
    Policy {
        root: Root::Empty,
        descriptors: DESCRIPTORS,
        allowed: ALLOWED,
    }
}
