//! `cargo xtask fuzz [TARGET] [MINUTES]`: feeds a parser of foreign bytes with what libFuzzer thinks of.
//!
//! The stable compiler can instrument, so neither a nightly toolchain nor cargo-fuzz is needed; address checks would need
//! one, and the parsers are safe Rust.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::build::cargo;
use crate::progress::line;
use crate::workspace::{TRIPLE, root, target};

/// What libFuzzer needs to see where its inputs lead, with every check that a debug build has.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=on -Coverflow-checks=on --cfg fuzzing";

/// Feed a parser of foreign bytes (fuzz/), or all of them one after the other.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The target [default: all]
    target: Option<String>,
    /// How long each
    #[arg(default_value_t = 1.0)]
    minutes: f64,
    /// Executions of each, however long they take
    #[arg(long, conflicts_with = "minutes")]
    runs: Option<u64>,
}

impl Arguments {
    /// A few seconds of each target: that it still builds, and that nothing shallow was broken.
    pub(crate) fn short() -> Self {
        Self {
            target: None,
            minutes: 0.05,
            runs: None,
        }
    }
}

/// Feeds the target or all of them.
///
/// # Errors
/// When they do not build or there is no such target; a crash is in the exit code.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let targets = targets()?;
    let chosen = match &arguments.target {
        None => targets,
        Some(target) if targets.contains(target) => vec![target.clone()],
        Some(target) => bail!(
            "there is no target {target}; there are {}",
            targets.join(", ")
        ),
    };
    let limit = match arguments.runs {
        Some(runs) => format!("-runs={runs}"),
        None => format!("-max_total_time={:.0}", arguments.minutes * 60.0),
    };
    feed(&chosen, &limit)
}

fn feed(targets: &[String], limit: &str) -> Result<ExitCode> {
    let programs = build(targets)?;
    let mut crashed = Vec::new();
    for target in targets {
        line(&format!("fuzz: {target} {limit}"));
        let findings = folder("findings", target)?;
        let mut fuzzer = Command::new(programs.join(target));
        fuzzer
            .arg(limit)
            .arg(format!("-artifact_prefix={}/", findings.display()))
            .args([
                "-print_final_stats=1",
                "-print_funcs=0",
                "-verbosity=0",
                "-timeout=10",
                "-rss_limit_mb=1024",
            ])
            .arg(folder("corpus", target)?);
        if let Some(executions) = watch(&mut fuzzer)? {
            line(&format!(
                "fuzz: {target} had {executions} executions and no finding (docs/fuzzing.md)"
            ));
        } else {
            line(&format!(
                "fuzz: {target} failed; the input is in {}",
                findings.display()
            ));
            crashed.push(target.as_str());
        }
    }
    Ok(if crashed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs a target to its end and passes on what it says; returns how many inputs it had, or nothing if it failed.
fn watch(fuzzer: &mut Command) -> Result<Option<u64>> {
    const COUNT: &str = "stat::number_of_executed_units:";
    let mut running = fuzzer
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start a target")?;
    let said = running.stderr.take().context("a target has no stderr")?;
    let mut executions = 0;
    for said in BufReader::new(said).split(b'\n') {
        let said = said.context("cannot read what a target says")?;
        let said = String::from_utf8_lossy(&said);
        if let Some(count) = said.strip_prefix(COUNT) {
            executions = count.trim().parse().context("a count that is no number")?;
        }
        let shown = writeln!(std::io::stderr(), "{said}");
        shown.context("cannot write to stderr")?;
    }
    let status = running.wait().context("cannot wait for a target")?;
    Ok(status.success().then_some(executions))
}

fn build(targets: &[String]) -> Result<PathBuf> {
    line("fuzz: building the targets");
    let folder = target()?.join("fuzz");
    let mut cargo = cargo("build");
    cargo
        .current_dir(root().join("fuzz"))
        .args(["--release", "--quiet"]);
    cargo
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", &folder);
    for target in targets {
        cargo.args(["--bin", target]);
    }
    if !cargo.status().context("cannot start cargo")?.success() {
        bail!("the targets do not build");
    }
    Ok(folder.join(TRIPLE).join("release"))
}

/// Returns the targets that fuzz/Cargo.toml names.
fn targets() -> Result<Vec<String>> {
    let mut cargo = cargo("metadata");
    cargo
        .current_dir(root().join("fuzz"))
        .args(["--no-deps", "--format-version=1"]);
    let output = crate::command::output(&mut cargo)?;
    let metadata: Value =
        serde_json::from_str(&output).context("cannot read the fuzz workspace")?;
    let listed = metadata["packages"][0]["targets"]
        .as_array()
        .context("fuzz/ has no targets")?;
    Ok(listed
        .iter()
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect())
}

/// Returns the folder in which `target` keeps its `what` between runs, outside the checkout's tracked files.
fn folder(what: &str, target_name: &str) -> Result<PathBuf> {
    let folder = target()?.join("fuzz").join(what).join(target_name);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
