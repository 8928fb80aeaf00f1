//! What the network daemon may do: read and write the one socket or TAP device that it was given.

use libc::{SYS_ioctl, SYS_recvfrom, SYS_sendto, SYS_writev};
use sys::jail::{Allowed, Root};
use virtio::launch::Policy;

use crate::Backend;
use crate::offload::TUNSETOFFLOAD;

/// System calls beside the common ones. There is no address to send to: the socket is a connected Unix stream, and no
/// other can be made.
const STREAM: &[Allowed] = &[Allowed::call(SYS_recvfrom), Allowed::call(SYS_sendto)];

/// The same for a TAP device, which learns what the guest can take only when its driver starts. Nothing else can be
/// asked of it: not its name, not its owner.
const TAP: &[Allowed] = &[
    Allowed::with(SYS_ioctl, 1, TUNSETOFFLOAD),
    Allowed::call(SYS_writev),
];

/// Returns the jail of a card with this backend.
#[must_use]
pub fn policy(backend: &Backend) -> Policy {
    Policy {
        root: Root::Empty,
        descriptors: 1,
        allowed: match backend {
            Backend::Stream(_) => STREAM,
            Backend::Tap(_) => TAP,
        },
    }
}
