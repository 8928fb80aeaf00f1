//! The Wayland filter of a VM, on the host.
fn main() {}
