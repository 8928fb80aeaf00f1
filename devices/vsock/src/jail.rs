//! What the vsock daemon may do: connect to the sockets of one directory, and accept from one socket.

use std::os::fd::OwnedFd;

use libc::{
    AF_UNIX, SYS_accept4, SYS_connect, SYS_readv, SYS_recvfrom, SYS_sendto, SYS_shutdown,
    SYS_socket, SYS_writev,
};
use sys::jail::{Allowed, Root};
use virtio::launch::Policy;

use crate::muxer::MAX_PEERS;

/// System calls beside the common ones.
const ALLOWED: &[Allowed] = &[
    Allowed::call(SYS_accept4),
    Allowed::with(SYS_socket, 0, AF_UNIX as u64),
    // Only sockets below the root have a name, and the root is the directory.
    Allowed::call(SYS_connect),
    Allowed::call(SYS_readv),
    Allowed::call(SYS_recvfrom),
    Allowed::call(SYS_sendto),
    Allowed::call(SYS_shutdown),
    Allowed::call(SYS_writev),
];

/// Returns the jail of a daemon whose host side is `directory`.
#[must_use]
pub fn policy(directory: OwnedFd) -> Policy {
    Policy {
        root: Root::Sockets(directory),
        descriptors: MAX_PEERS as u64,
        allowed: ALLOWED,
    }
}
