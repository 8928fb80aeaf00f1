//! The one language between the programs: generated messages and services, the typed names that are parsed
//! once at the edge, and [`Fault`], the error that keeps its causes on every hop.
//!
//! Nothing here opens a socket (that is `link`) or asks the kernel anything (that is `sys`).

mod fault;
mod names;
pub mod ports;
pub mod vsh;

pub use fault::{Fault, Kind};
pub use names::{Bytes, ContainerName, Mib, NameError, SizeError, SnapshotName, VmName};

/// Messages, clients and servers generated from `proto/`; their documentation is there.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated; documented in proto/"
)]
pub mod proto {
    tonic::include_proto!("testudo.v1");
}

/// Version of the wire: a client and a daemon that differ here do not talk.
pub const PROTOCOL: u32 = 1;

/// Request metadata that names the VM in calls that concierge forwards.
pub const VM_METADATA: &str = "testudo-vm";

/// Request metadata with the id made by the client; a span field in every process it reaches.
pub const REQUEST_METADATA: &str = "testudo-request";

/// Request metadata with the client's [`PROTOCOL`].
pub const PROTOCOL_METADATA: &str = "testudo-protocol";
