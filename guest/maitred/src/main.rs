//! maitred.

fn main() {}
