//! Measures the product as its user has it, on the host: `cargo xtask bench start` builds this, runs it as an ordinary user,
//! and makes a table of the JSON that it prints.

mod idle;
mod peers;
mod start;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use fixture::Home;
use serde::Serialize;

/// How often everything is done; the median counts.
const ROUNDS: usize = 5;

/// What one run found. Times in seconds.
#[derive(Debug, Default, Serialize)]
struct Figures {
    /// `testudo run -- true` with nothing running, no disk and no container.
    first_s: f64,
    /// The same with nothing running.
    cold_s: f64,
    /// The same with the container running.
    warm_s: f64,
    kernel_to_init_s: f64,
    init_to_ready_s: f64,
    /// Each stage of a cold start as its client was told.
    stages_s: BTreeMap<String, f64>,
    /// From a started VM to the end of a command in the container: our way.
    container_s: f64,
    /// The same container the other way: its daemon, its start, its exec.
    incus_s: f64,
    ratio_to_incus: f64,
    debian_kernel_to_init_s: f64,
    ratio_kernel_to_debian: f64,
    /// Of one core, over the whole tree of processes, when nobody does anything.
    idle_cpu_percent: f64,
    idle_guest_used_mib: f64,
    idle_host_mib: f64,
    tool_mib: BTreeMap<String, f64>,
    engine: String,
    rounds: usize,
}

fn main() -> ExitCode {
    let mut home = Home::new();
    let mut figures = Figures {
        rounds: ROUNDS,
        ..Figures::default()
    };
    start::measure(&home, &mut figures);
    idle::measure(&home, &mut figures);
    peers::measure(&mut home, &mut figures);
    home.end();
    let line = serde_json::to_string(&figures).expect("numbers and names are JSON");
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Returns the middle of `values`.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Tells the person who waits; the result goes to stdout.
fn say(text: &str) {
    // Without a stderr nobody waits.
    let _ = writeln!(std::io::stderr(), "bench: {text}");
}
