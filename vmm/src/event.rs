//! Waits for KVM's kind of event descriptor with everyone else's way of waiting, on the host.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: the crates of event descriptors and of vhost-user offer only numbers"
)]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use vhost::vhost_user::{FrontendReqHandler, VhostUserFrontendReqHandler};
use vmm_sys_util::eventfd::EventFd;

/// Returns the descriptor behind `event`.
pub(crate) fn descriptor(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: `event` owns the descriptor and keeps it open for at least as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// Returns the descriptor on which a daemon's own requests come to `handler`.
pub(crate) fn channel<H: VhostUserFrontendReqHandler>(
    handler: &FrontendReqHandler<H>,
) -> BorrowedFd<'_> {
    // SAFETY: `handler` owns the descriptor and keeps it open for at least as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(handler.as_raw_fd()) }
}
