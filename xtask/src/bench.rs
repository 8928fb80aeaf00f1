//! `cargo xtask bench [NAME] [--json]`: measures, prints, and keeps the figures in docs/benchmarks.md.

mod sommelier;
mod vmm;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::image::{self, DEBIAN_KERNEL_MARKER};
use crate::packages::{self, Purpose};
use crate::progress::line;
use crate::tester::Tester;
use crate::{build, e2e, workspace};

/// Where the figures are kept.
const PAGE: &str = "docs/benchmarks.md";

/// Measure the product and its peers in one run, and keep the figures in docs/benchmarks.md.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value = "start")]
    what: What,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// How often each device is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// The main path, from nothing to a command in the container, and what an idle VM costs
    Start,
    /// Device daemons beside their peers, on the same guest, and our monitor in the lab
    Vmm,
    /// Windows of the container on the host's screen
    Sommelier,
}

/// One figure as people read it: its name in the JSON, what it is, and the goal.
const ROWS: &[(&str, &str, &str)] = &[
    (
        "first_s",
        "first `testudo run -- true`: disk and container are made",
        "",
    ),
    (
        "cold_s",
        "`testudo run -- true`, nothing running",
        "≤ 4 s, aim 2.5 s",
    ),
    (
        "warm_s",
        "`testudo run -- true`, container running",
        "≤ 0.3 s",
    ),
    ("kernel_to_init_s", "kernel start to init", ""),
    ("init_to_ready_s", "init to ready", ""),
    (
        "debian_kernel_to_init_s",
        "peer: Debian's cloud kernel to init, same engine",
        "",
    ),
    (
        "ratio_kernel_to_debian",
        "our kernel's time to Debian's",
        "≤ 0.5",
    ),
    (
        "container_s",
        "started VM to a command in the container",
        "",
    ),
    (
        "incus_s",
        "peer: the same with Incus in the same VM (daemon, start, exec)",
        "",
    ),
    ("ratio_to_incus", "our time to Incus's", "≤ 0.2"),
    (
        "idle_cpu_percent",
        "idle VM, all its host processes, % of one core",
        "< 1",
    ),
    (
        "idle_guest_used_mib",
        "guest memory used at idle, MiB",
        "≤ 114 (120 MB)",
    ),
    (
        "idle_host_mib",
        "host memory of engine and daemons, MiB",
        "",
    ),
];

/// Measures what was asked for.
///
/// # Errors
/// When something cannot be built or measured.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (figures, table, name) = match arguments.what {
        What::Start => {
            let figures = start()?;
            let table = table(&figures)?;
            (figures, table, "start")
        }
        What::Vmm => {
            let figures = vmm::measure(arguments.rounds)?;
            let table = vmm::table(&figures)?;
            (figures, table, "vmm")
        }
        What::Sommelier => {
            let figures = sommelier::measure()?;
            let table = sommelier::table(&figures)?;
            (figures, table, "sommelier")
        }
    };
    let result = if arguments.json {
        format!("{figures}\n")
    } else {
        table.clone()
    };
    std::io::stdout()
        .write_all(result.as_bytes())
        .context("cannot print the figures")?;
    keep(name, &table)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the measuring program as an ordinary user and returns what it found.
fn start() -> Result<Value> {
    packages::ensure(&[Purpose::Image, Purpose::Product, Purpose::Test])?;
    let image = image::build(&image::Arguments::default())?;
    let peer = image::debian_kernel()?;
    let built = build::programs()?;
    let mut cargo = build::cargo("build");
    cargo.args([
        "--package",
        "measure",
        "--bin",
        "measure",
        "--message-format=json-render-diagnostics",
    ]);
    let program = e2e::executable(&mut cargo)?;
    let tester = Tester::find()?;
    line("bench: about five minutes; the machine should do nothing else");
    let output = tester
        .command(&tester.share(&program, "measure")?)?
        .env(
            "TESTUDO_E2E_PROGRAMS",
            e2e::share_programs(&tester, &built, None)?,
        )
        .env("TESTUDO_E2E_IMAGE", tester.share(&image, "image")?)
        .env(
            "TESTUDO_BENCH_KERNEL",
            tester.share(&peer.kernel, "peer/kernel")?,
        )
        .env(
            "TESTUDO_BENCH_INITRD",
            tester.share(&peer.initrd, "peer/initrd")?,
        )
        .env("TESTUDO_BENCH_MARKER", DEBIAN_KERNEL_MARKER)
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
fn table(figures: &Value) -> Result<String> {
    let mut text = String::from("| what | median | goal |\n|---|---|---|\n");
    let mut row =
        |what: &str, value: f64, goal: &str| writeln!(text, "| {what} | {value:.3} | {goal} |");
    for (key, what, goal) in ROWS {
        let value = figures[*key]
            .as_f64()
            .with_context(|| format!("no figure {key}"))?;
        row(what, value, goal)?;
    }
    let map = |key: &str| -> Result<BTreeMap<String, f64>> {
        serde_json::from_value(figures[key].clone()).with_context(|| format!("no figures {key}"))
    };
    for (name, seconds) in map("stages_s")? {
        row(&format!("stage {name} of the cold start"), seconds, "")?;
    }
    for (name, mib) in map("tool_mib")? {
        row(&format!("size of {name}, MiB"), mib, "≤ 7.6 (8 MB)")?;
    }
    Ok(text)
}

/// Replaces this chore's part of the page.
fn keep(name: &str, table: &str) -> Result<()> {
    let path = workspace::root().join(PAGE);
    let page = std::fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let page =
        replaced(&page, name, table).with_context(|| format!("{PAGE} has no marks for {name}"))?;
    std::fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))
}

/// Replaces the part of the page that this chore writes: what is between two marks with its name.
fn replaced(page: &str, name: &str, table: &str) -> Option<String> {
    let (begin, end) = (
        format!("<!-- bench {name} -->"),
        format!("<!-- end of bench {name} -->"),
    );
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{table}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_between_the_marks_changes() {
        let page =
            |text: &str| format!("a\n<!-- bench x -->\n{text}\n<!-- end of bench x -->\nb\n");
        assert_eq!(replaced(&page("old"), "x", "new\n"), Some(page("new")));
        assert_eq!(replaced(&page("old"), "y", "new\n"), None);
    }
}
