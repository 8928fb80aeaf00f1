//! device-net.
