//! Linux asked safely, for every program on host, guest and container: one file for each subject.
//!
//! This is the room for `unsafe`: what rustix offers safely is used directly by the callers, and only what
//! needs raw calls is wrapped here.

pub mod btrfs;
pub mod inherited;
pub mod jail;
pub mod process;
pub mod spawn;
pub mod tsc;
pub mod usage;
