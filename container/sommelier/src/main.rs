//! The Wayland proxy of a container.
fn main() {}
