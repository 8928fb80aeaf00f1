//! concierge.

fn main() {}
