//! PCI on the host side: configuration spaces, message interrupts and the one bus that holds them.

pub(crate) mod bus;
pub(crate) mod config;
pub(crate) mod msix;
