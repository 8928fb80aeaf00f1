//! device-rng.
