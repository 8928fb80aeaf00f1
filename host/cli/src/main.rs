//! testudo.

fn main() {}
