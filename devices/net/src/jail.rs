//! What the network daemon may do: read and write the one socket that concierge connected for it.

use libc::{SYS_recvfrom, SYS_sendto, SYS_writev};
use sys::jail::{Allowed, Root};
use virtio::launch::Policy;

/// System calls beside the common ones. There is no address to send to: the socket is a connected Unix stream, and no
/// other can be made.
const ALLOWED: &[Allowed] = &[
    Allowed::call(SYS_recvfrom),
    Allowed::call(SYS_sendto),
    Allowed::call(SYS_writev),
];

/// Returns the daemon's jail.
#[must_use]
pub fn policy() -> Policy {
    Policy {
        root: Root::Empty,
        descriptors: 1,
        allowed: ALLOWED,
    }
}
