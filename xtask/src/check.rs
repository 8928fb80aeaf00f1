//! `cargo xtask check`: format, lints, documentation, licences and tidy. Runs all of them and reports all that fail.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::build::cargo;
use crate::progress::line;

/// Runs every check.
///
/// # Errors
/// When cargo itself cannot be started; a check that fails is in the exit code.
pub(crate) fn run() -> Result<ExitCode> {
    let mut failed = Vec::new();
    for (name, mut command) in checks() {
        line(&format!("check: {name}"));
        if !command
            .status()
            .with_context(|| format!("cannot start the check {name}"))?
            .success()
        {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        line("check: all good");
        return Ok(ExitCode::SUCCESS);
    }
    line(&format!("check: failed: {}", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}

fn checks() -> Vec<(&'static str, Command)> {
    let mut format = cargo("fmt");
    format.args(["--all", "--check"]);
    let mut lints = cargo("clippy");
    lints.args([
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ]);
    let mut documentation = cargo("doc");
    documentation
        .args([
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--quiet",
        ])
        .env(
            "RUSTDOCFLAGS",
            "--deny warnings --allow rustdoc::private_intra_doc_links",
        );
    let mut tidy = cargo("test");
    tidy.args(["--package", "xtask", "--test", "tidy", "--quiet"]);
    let mut checks = vec![
        ("format", format),
        ("lints", lints),
        ("documentation", documentation),
        ("tidy", tidy),
    ];
    let mut deny = cargo("deny");
    deny.args(["check", "bans", "licenses", "sources"]);
    // Not every machine has it; tidy checks licences and sources from the same deny.toml.
    if cargo("deny")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        checks.push(("cargo-deny", deny));
    } else {
        line(
            "check: cargo-deny is not installed; tidy checks licences and sources from deny.toml, nobody advisories",
        );
    }
    checks
}
