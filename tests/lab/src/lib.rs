//! Starts `crosvm` as concierge would, with guests made by hand or Termina's kernel, for the tests that need real
//! KVM. The tests run on the host, or in the lab: a VM with emulated hardware virtualisation.

#![expect(
    clippy::unwrap_used,
    reason = "a test fixture: what cannot be set up fails the test"
)]

pub mod daemon;
pub mod engine;
pub mod guest;
pub mod place;
pub mod shell;

/// Says figures to `cargo xtask bench vmm`, each with its name, on a line that the kernel's own cannot begin.
pub fn figures(figures: &[(&str, f64)]) {
    let named = figures.iter().map(|(name, figure)| {
        let figure = serde_json::Value::from(*figure);
        ((*name).to_owned(), figure)
    });
    let named: serde_json::Map<_, _> = named.collect();
    println!("\nFIGURES {}", serde_json::Value::from(named));
}
