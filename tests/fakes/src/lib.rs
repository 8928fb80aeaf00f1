//! Fake peers for tests: the other side of a protocol, real enough that the side under test cannot tell.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails where it stands"
)]

pub mod concierge;
pub mod driver;
pub mod qcow2;
pub mod ring;
pub mod vshd;
