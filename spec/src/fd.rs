//! How one process names a descriptor it leaves open for the process it starts: by number, on the host.
//!
//! A specification never holds a path: the parent opens, checks and hands over, so that the child can work
//! in an empty root. `sys::inherited` turns the number into an owned descriptor, once.

use std::fmt;
use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

/// The number of a descriptor that the parent left open across `exec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InheritedFd(pub RawFd);

impl InheritedFd {
    /// The first number that is not one of the three standard streams.
    pub const FIRST_FREE: RawFd = 3;

    /// Returns true for standard input, output and error.
    #[must_use]
    pub fn is_standard(self) -> bool {
        (0..Self::FIRST_FREE).contains(&self.0)
    }
}

impl fmt::Display for InheritedFd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}
