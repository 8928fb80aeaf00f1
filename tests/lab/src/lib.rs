//! Starts `crosvm` as concierge would, with guests made by hand or Termina's kernel, for the tests that need real
//! KVM. The tests run on the host, or in the lab: a VM with emulated hardware virtualisation.

#![expect(
    clippy::unwrap_used,
    reason = "a test fixture: what cannot be set up fails the test"
)]

pub mod daemon;
pub mod engine;
pub mod guest;
pub mod place;
pub mod shell;
