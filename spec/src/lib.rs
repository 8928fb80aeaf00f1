//! The machine as data: the messages that concierge hands to an engine, to each device daemon and to the host end of
//! windows, on the host.
//!
//! Nothing here acts. A message is parsed, checked against itself, and only then do its readers take the
//! descriptors it names (`sys::inherited`).

pub mod control;
pub mod device;
pub mod end;
pub mod fd;
pub mod units;
pub mod vm;
pub mod windows;
