//! device-vsock.
