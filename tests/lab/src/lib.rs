//! Starts `crosvm` as concierge would, with guests made by hand or Termina's kernel, for the tests that need real
//! KVM. The tests run on the host, or in the lab: a VM with emulated hardware virtualisation.

#![expect(
    clippy::unwrap_used,
    reason = "a test fixture: what cannot be set up fails the test"
)]

use std::io::Write as _;

pub mod daemon;
pub mod engine;
pub mod guest;
pub mod place;
pub mod shell;

/// Says figures to `cargo xtask bench vmm`, each with its name, on a line of their own.
///
/// # Panics
/// When nobody hears them.
pub fn figures(figures: &[(&str, f64)]) {
    let named = figures.iter().map(|(name, figure)| {
        let figure = serde_json::Value::from(*figure);
        ((*name).to_owned(), figure)
    });
    let named: serde_json::Map<_, _> = named.collect();
    let line = format!("\nFIGURES {}\n", serde_json::Value::from(named));
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}
