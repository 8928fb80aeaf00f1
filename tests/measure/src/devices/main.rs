//! Measures our device daemons and their peers on one and the same guest of QEMU's emulator, on the host: `cargo xtask bench
//! vmm` builds this, runs it in a network of its own, and makes a table of the JSON that it prints.

mod block;
mod job;
mod machine;
mod stream;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;

/// How often everything is done; the median counts.
const ROUNDS: usize = 5;

/// What one device of one maker did: the name of the load and its figure.
type Figures = BTreeMap<&'static str, f64>;

/// A device of one maker, and what measures it once.
type Case = (&'static str, &'static str, fn() -> Result<Figures>);

/// Ours first; peers of the same kind follow.
const CASES: &[Case] = &[
    ("net", "ours", stream::net_ours),
    ("net", "qemu_stream", stream::net_qemu_stream),
    ("net", "qemu_user", stream::net_qemu_user),
    ("vsock", "ours", stream::vsock_ours),
    ("vsock", "vhost_device_vsock", stream::vsock_peer),
    ("block", "ours", block::ours),
    ("block", "qemu_storage_daemon", block::storage_daemon),
    ("block", "qemu", block::qemu),
];

fn main() -> ExitCode {
    match measure() {
        Ok(line) if writeln!(std::io::stdout(), "{line}").is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Measures every case in each round, so that what slows the machine down for a while slows all of them; another begins each
/// time, so that none always has the caches as the same one left them.
fn measure() -> Result<String> {
    let only = std::env::args().nth(1);
    let rounds = std::env::args()
        .nth(2)
        .map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    let mut found: BTreeMap<&str, BTreeMap<&str, BTreeMap<&str, Vec<f64>>>> = BTreeMap::new();
    for round in 1..=rounds {
        let (before, after) = CASES.split_at((round - 1) % CASES.len());
        for (device, maker, case) in after.iter().chain(before) {
            if only
                .as_ref()
                .is_some_and(|only| only != device && only != "all")
            {
                continue;
            }
            let figures = case()?;
            say(&format!("round {round}: {device} {maker}: {figures:.0?}"));
            let loads = found.entry(device).or_default().entry(maker).or_default();
            for (load, figure) in figures {
                loads.entry(load).or_default().push(figure);
            }
        }
    }
    let medians: BTreeMap<_, BTreeMap<_, BTreeMap<_, f64>>> = found
        .into_iter()
        .map(|(device, makers)| {
            let makers = makers.into_iter().map(|(maker, loads)| {
                let loads = loads.into_iter().map(|(load, all)| (load, median(all)));
                (maker, loads.collect())
            });
            (device, makers.collect())
        })
        .collect();
    Ok(serde_json::to_string(&medians)?)
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
