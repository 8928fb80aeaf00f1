//! Where the tests find what they run: `cargo xtask lab` says so in the environment, on the host and in the lab.

use std::path::PathBuf;

/// Returns a program of ours, such as `crosvm`.
///
/// # Panics
/// When nobody said where it is.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    named("TESTUDO_LAB_PROGRAMS").join(name)
}

/// Returns a part of Termina's image, such as `vmlinux`.
///
/// # Panics
/// When nobody said where it is.
#[must_use]
pub fn image(part: &str) -> PathBuf {
    named("TESTUDO_LAB_IMAGE").join(part)
}

fn named(variable: &str) -> PathBuf {
    let place = std::env::var_os(variable);
    place
        .unwrap_or_else(|| panic!("{variable} is not set: run `cargo xtask lab`"))
        .into()
}
