//! crosvm.

fn main() {}
