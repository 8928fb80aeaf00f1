//! How calls travel between the programs: the daemon's unix socket, the VM's hybrid vsock seen from the host,
//! the real vsock seen from the guest, and the metadata that every request carries.
//!
//! What is said is `wire`'s business; nothing here knows a message.

pub mod config;
pub mod daemon;
pub mod guest;
pub mod hybrid;
pub mod places;
pub mod request;
pub mod unix;

/// Largest gRPC message accepted from any peer. Bulk data goes in chunks of at most 1 MiB, so anything larger is
/// a bug or an attack.
pub const MESSAGE_MAX: usize = 4 << 20;
