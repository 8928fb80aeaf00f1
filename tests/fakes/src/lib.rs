//! Fake peers for tests: the other side of a protocol, real enough that the side under test cannot tell.

pub mod concierge;
pub mod driver;
pub mod ring;
pub mod vshd;
