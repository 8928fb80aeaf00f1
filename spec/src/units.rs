//! Sizes with their unit in the type, shared by every process on the host.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A size in mebibytes (2^20 bytes).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Mib(pub u32);

impl Mib {
    /// Returns the size in bytes; 2^32 mebibytes still fit.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.0) << 20
    }
}

impl fmt::Display for Mib {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} MiB", self.0)
    }
}
