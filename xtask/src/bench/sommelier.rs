//! `cargo xtask bench sommelier [--json]`: what a window through the VM's window channel costs, beside no proxy and
//! waypipe in the same run.

use std::fmt::Write as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::packages::{self, Purpose};
use crate::progress::line;
use crate::tester::Tester;
use crate::{build, e2e, windows};

/// The rows, in the order in which people compare them: the key in the JSON and what it is.
const ROWS: &[(&str, &str)] = &[
    ("none", "no proxy"),
    ("direct", "unix channel"),
    ("stream", "stream channel"),
    ("packed", "stream channel, LZ4"),
    ("waypipe", "peer: waypipe, no compression"),
];

/// Builds what is measured and returns the figures.
///
/// # Errors
/// When something cannot be built or measured.
pub(super) fn measure() -> Result<Value> {
    packages::ensure(&[Purpose::Windows])?;
    let tester = Tester::find()?;
    let folder = windows::programs(&tester)?;
    line("bench: building what measures");
    let mut cargo = build::cargo("build");
    cargo.args([
        "--release",
        "--package",
        "windows",
        "--bin",
        "measure-windows",
    ]);
    cargo.arg("--message-format=json-render-diagnostics");
    let program = e2e::executable(&mut cargo)?;
    let program = tester.share(&program, "windows/measure-windows")?;
    let output = tester
        .command(&program)?
        .env("TESTUDO_WINDOWS_PROGRAMS", folder)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the measuring program")?;
    if !output.status.success() {
        bail!("the measuring program failed ({})", output.status);
    }
    serde_json::from_slice(&output.stdout).context("cannot read the figures")
}

/// Returns the figures as a table of Markdown.
///
/// # Errors
/// When a figure is missing.
pub(super) fn table(figures: &Value) -> Result<String> {
    let mut text = String::from(
        "| way | round trip p50 / p99, µs | small: read, shown, CPU, µs | 1080p part | 1080p full | fps full | \
         memory, KiB | per client |\n|---|---|---|---|---|---|---|---|\n",
    );
    for (key, what) in ROWS {
        let row = &figures[key];
        let number = |value: &Value| {
            value
                .as_u64()
                .map_or_else(|| "–".to_owned(), |n| n.to_string())
        };
        let load = |name: &str| {
            let load = &row["loads"][name];
            let parts = ["read_p50_us", "shown_p50_us", "cpu_per_frame_us"];
            parts.map(|part| number(&load[part])).join(", ")
        };
        let fps = row["loads"]["full_1080p"]["fps"]
            .as_f64()
            .with_context(|| format!("no figures for {key}"))?;
        writeln!(
            text,
            "| {what} | {} / {} | {} | {} | {} | {fps:.1} | {} | {} |",
            number(&row["round_trip_p50_us"]),
            number(&row["round_trip_p99_us"]),
            load("small"),
            load("partial_1080p"),
            load("full_1080p"),
            number(&row["memory_kib"]),
            number(&row["memory_per_client_kib"]),
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_way() {
        let load = serde_json::json!({ "read_p50_us": 1, "shown_p50_us": 2, "cpu_per_frame_us": 3, "fps": 59.9 });
        let row = serde_json::json!({ "round_trip_p50_us": 9, "round_trip_p99_us": 10,
            "loads": { "small": load, "partial_1080p": load, "full_1080p": load } });
        let keys = ROWS.iter().map(|(key, _)| ((*key).to_owned(), row.clone()));
        let text = table(&Value::Object(keys.collect())).unwrap();
        assert_eq!(text.lines().count(), 2 + ROWS.len());
        assert!(text.contains("| no proxy | 9 / 10 | 1, 2, 3 |"), "{text}");
    }
}
