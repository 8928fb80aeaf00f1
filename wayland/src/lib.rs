//! How one Wayland connection crosses the border of a VM: the language that `sommelier` (container
//! side) and `wayland-hostd` (host side) share.
//!
//! Each end runs a `wl-proxy` state for one client and this crate's [`session::Session`] loop. What
//! lies between the two ends is a [`channel::Channel`]:
//!
//! ```text
//!  app ── State ── Channel ═════════ border ═════════ Channel ── State ── compositor
//!        (guest)   Direct: one unix socket, descriptors pass        (host, filters)
//!                  Stream: frames on a byte stream (vsock); pools are copied, pipes relayed
//! ```
//!
//! Nothing here decides what a guest may do; that is the host end's filter.

pub mod channel;
pub mod codec;
pub mod direct;
pub mod frame;
pub mod inbox;
pub mod outbox;
pub mod pipes;
pub mod pool;
pub mod rows;
pub mod session;
pub mod socket;
pub mod stream;

/// The vsock port on which the host end accepts one connection for each Wayland client.
pub const PORT: u32 = 7781;
