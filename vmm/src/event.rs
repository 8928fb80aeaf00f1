//! Waits for KVM's kind of event descriptor with everyone else's way of waiting, on the host.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: the event descriptor's crate offers only its number"
)]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use vmm_sys_util::eventfd::EventFd;

/// Returns the descriptor behind `event`.
pub(crate) fn descriptor(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: `event` owns the descriptor and keeps it open for at least as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
