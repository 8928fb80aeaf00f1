//! device-block.
