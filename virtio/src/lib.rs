//! What every device daemon shares: guest memory, rings, the vhost-user loop and the way into the jail, on the host.
//!
//! A device is a [`Device`]: features, a configuration space, queues, and what to do when the driver kicks one or
//! one of its own descriptors is ready. [`serve`] does the rest, in one thread: no device needs a lock, and a jail
//! need not let threads be made. `devices/rng` is the smallest example.

mod backend;
mod chain;
mod daemon;
mod device;
mod early;
#[cfg(fuzzing)]
pub mod harness;
mod inflight;
pub mod jail;
pub mod launch;
pub mod log;
mod memory;
mod poll;
mod ring;

pub use self::chain::{Buffers, Chain};
pub use self::daemon::{ServeError, Server, serve};
pub use self::device::{Device, Guest};
pub use self::memory::{
    MAX_VECTORS, Memory, MemoryError, read_at, read_cached_at, read_some, vectors, write_at,
    write_some,
};
pub use self::poll::{Interest, Poll, Ready};
pub use self::ring::{MAX_RING, Ring};
