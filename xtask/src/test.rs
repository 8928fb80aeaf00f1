//! `cargo xtask test`: everything that CI checks. Runs all of it and reports all that fails.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::packages::{self, Purpose};
use crate::progress::{line, spoken};
use crate::{build, check, e2e, fuzz, lab, windows};

/// The walks that have been seen to pass whole since they last changed; `cargo xtask e2e` runs the others too.
const WALKS: &[&str] = &[
    "an_error",
    "bad_input",
    "clock",
    "container_name",
    "disk",
    "full_disk",
    "give_back",
    "imports",
    "incus",
    "keystroke",
    "kill",
    "memory_size",
    "network",
    "person",
    "podman",
    "request_id",
    "resolver",
    "service",
    "stop",
    "survival",
    "window",
];

/// One part of the whole; its exit code says whether it is good.
type Part = fn() -> Result<ExitCode>;

/// Runs every part, the quick ones first.
///
/// # Errors
/// When packages are missing and cannot be installed; what fails later is in the exit code.
pub(crate) fn run() -> Result<ExitCode> {
    packages::ensure(&[
        Purpose::Image,
        Purpose::Product,
        Purpose::Test,
        Purpose::Windows,
    ])?;
    let parts: [(&str, Part); 6] = [
        ("check", check::run),
        ("unit and program tests", unit),
        ("fuzz, briefly", || fuzz::run(&fuzz::Arguments::short())),
        ("end-to-end", || e2e::run(&e2e::Arguments::walks(WALKS))),
        ("windows", || windows::run(&windows::Arguments::default())),
        ("lab", || lab::run(&lab::Arguments::default())),
    ];
    let mut failed = Vec::new();
    for (name, part) in parts {
        line(&format!("test: {name}"));
        let start = Instant::now();
        let good = match part() {
            Ok(code) => code == ExitCode::SUCCESS,
            Err(error) => {
                line(&format!("test: {name}: {error:#}"));
                false
            }
        };
        line(&format!(
            "test: {name}: {} after {}",
            if good { "passed" } else { "FAILED" },
            spoken(start.elapsed())
        ));
        if !good {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        line("test: everything passed");
        return Ok(ExitCode::SUCCESS);
    }
    line(&format!("test: failed: {}", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}

/// All tests that need neither VM nor image.
fn unit() -> Result<ExitCode> {
    let mut cargo = build::cargo("test");
    // The suite, the lab and the windows' tests, which have a user of their own, are parts by themselves.
    cargo.args(["--workspace", "--exclude", "windows", "--no-fail-fast"]);
    let status = cargo.status().context("cannot start cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
