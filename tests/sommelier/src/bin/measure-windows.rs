//! Measures windows on a headless weston: without us, through both ends over each link, and through waypipe, in one run.
//! Prints one JSON object; `cargo xtask bench sommelier` keeps it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use windows::{
    Link, Load, Options, Probe, Program, Running, Screen, Stage, WESTON, eventually, usage,
};

/// Round trips and pictures measured in each row.
const ROUND_TRIPS: usize = 2_000;
const PICTURES: usize = 120;

/// Programs connected at once when memory is measured.
const CLIENTS: usize = 16;

const LOADS: [(&str, Load); 3] = [
    (
        "small",
        Load {
            width: 400,
            height: 300,
            changed: (32, 32),
        },
    ),
    (
        "partial_1080p",
        Load {
            width: 1920,
            height: 1080,
            changed: (960, 270),
        },
    ),
    (
        "full_1080p",
        Load {
            width: 1920,
            height: 1080,
            changed: (1920, 1080),
        },
    ),
];

#[derive(Serialize)]
struct Row {
    round_trip_p50_us: u64,
    round_trip_p99_us: u64,
    loads: BTreeMap<&'static str, LoadRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_kib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_per_client_kib: Option<u64>,
}

#[derive(Serialize)]
struct LoadRow {
    read_p50_us: u64,
    read_p99_us: u64,
    /// Nothing if the compositor never said when it showed a picture.
    shown_p50_us: Option<u64>,
    fps: f64,
    cpu_per_frame_us: u64,
}

fn main() -> ExitCode {
    let screen = Screen::new();
    let _weston = screen.headless_weston();
    let mut rows = BTreeMap::new();
    rows.insert("none", measure(&screen.runtime().join(WESTON), &[]));
    for (name, link) in [
        ("direct", Link::Direct),
        ("stream", Link::Stream),
        ("packed", Link::Packed),
    ] {
        let stage = Stage::new(
            &screen,
            &Options {
                link,
                compositor: Some(WESTON),
                ..Options::default()
            },
        );
        let socket = screen.runtime().join("wayland-vm");
        rows.insert(
            name,
            measure(&socket, &[stage.hostd.pid(), stage.sommelier.pid()]),
        );
    }
    let (client, server, socket) = waypipe(&screen);
    rows.insert("waypipe", measure(&socket, &[client.pid(), server.pid()]));
    drop((client, server));
    let text = serde_json::to_string(&rows).expect("numbers and names");
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Starts waypipe's two ends without compression, as it would be used on one machine.
fn waypipe(screen: &Screen) -> (Running, Running, PathBuf) {
    let link = screen.runtime().join("waypipe.sock");
    let shown = screen.runtime().join("wayland-waypipe");
    let socket = link.to_string_lossy().into_owned();
    let waypipe = || -> Program {
        screen
            .program("waypipe")
            .env("WAYLAND_DISPLAY", WESTON)
            .args(["--no-gpu", "--compress", "none", "--socket", &socket])
    };
    let client = waypipe().args(["client"]).start();
    eventually("waypipe's link", || link.exists());
    let name = shown.to_string_lossy().into_owned();
    let server = waypipe()
        .args(["--display", &name, "server", "--", "sleep", "600"])
        .start();
    eventually("waypipe's display", || shown.exists());
    (client, server, shown)
}

fn measure(socket: &std::path::Path, processes: &[u32]) -> Row {
    let used = || -> (u64, u64) {
        let all = processes.iter().map(|pid| usage(*pid));
        all.fold((0, 0), |sum, each| {
            (sum.0 + each.cpu_ms, sum.1 + each.memory_kib)
        })
    };
    let idle = used().1;
    let probe = Probe::connect(socket).expect("a socket that was just made");
    probe.round_trips(200).expect("round trips");
    let trips = probe.round_trips(ROUND_TRIPS).expect("round trips");
    let mut loads = BTreeMap::new();
    for (name, load) in LOADS {
        let probe = Probe::connect(socket).expect("a socket that was just made");
        let before = used().0;
        let drawn = probe
            .draw(load, PICTURES)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let cpu_us = (used().0 - before) * 1000;
        let row = LoadRow {
            read_p50_us: percentile(&drawn.read_us, 50),
            read_p99_us: percentile(&drawn.read_us, 99),
            shown_p50_us: (!drawn.shown_us.is_empty()).then(|| percentile(&drawn.shown_us, 50)),
            fps: (drawn.fps * 10.0).round() / 10.0,
            cpu_per_frame_us: cpu_us / PICTURES as u64,
        };
        loads.insert(name, row);
    }
    let probes: Vec<Probe> = (0..CLIENTS)
        .map(|_| Probe::connect(socket).expect("a socket"))
        .collect();
    probes.iter().for_each(|probe| drop(probe.round_trips(10)));
    let per_client = used().1.saturating_sub(idle) / CLIENTS as u64;
    let ours = !processes.is_empty();
    Row {
        round_trip_p50_us: percentile(&trips, 50),
        round_trip_p99_us: percentile(&trips, 99),
        loads,
        memory_kib: ours.then_some(idle),
        memory_per_client_kib: ours.then_some(per_client),
    }
}

fn percentile(values: &[u64], percent: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0)
}
