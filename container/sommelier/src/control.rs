//! The control socket of the container side, and the program that reads it: `sommelierctl top`.
//!
//! Whoever connects gets one JSON message with the counters of every client, and the end of the stream.

use std::collections::HashMap;
use std::io::{Read as _, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::listen;
use crate::stats::{ClientCount, Registry, SurfaceCount};

/// The socket's name in the runtime directory.
const SOCKET: &str = "sommelier.control";

/// How long a reader may take; it is a program of ours.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the time between two looks at the counters goes by.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
#[command(version, about = "Shows what the windows of this container cost")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists windows with their frames and bytes in a second, round trips and late frames.
    Top {
        /// Prints the counters once, as JSON.
        #[arg(long)]
        json: bool,
        /// Stops after that many rounds.
        #[arg(long)]
        rounds: Option<u32>,
    },
}

/// Serves the counters of `clients` on the control socket.
///
/// # Errors
/// When the socket can't be made.
pub(crate) fn serve(clients: &Registry) -> anyhow::Result<()> {
    let listener: UnixListener = listen::bind(&path()?)?;
    for stream in listener.incoming() {
        let mut stream = stream.context("cannot accept on the control socket")?;
        stream
            .set_write_timeout(Some(PATIENCE))
            .context("cannot prepare the control socket")?;
        let text = serde_json::to_vec(&clients.snapshot()).context("cannot write the counters")?;
        // A reader that leaves early has seen enough.
        let _ = stream.write_all(&text);
    }
    Ok(())
}

/// Runs `sommelierctl`.
///
/// # Errors
/// When no sommelier runs in this container.
pub(crate) fn run() -> anyhow::Result<()> {
    let Command::Top { json, rounds } = Arguments::parse().command;
    let path = path()?;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &read(&path)?)?;
        return Ok(writeln!(out)?);
    }
    let mut before = read(&path)?;
    for _ in 0..rounds.unwrap_or(u32::MAX) {
        // poll with no descriptors is a sleep that signals can end.
        let interval = rustix::event::Timespec::try_from(INTERVAL).unwrap_or_default();
        let _ = rustix::event::poll(&mut [], Some(&interval));
        let now = read(&path)?;
        out.write_all(table(&before, &now).as_bytes())?;
        before = now;
    }
    Ok(())
}

fn path() -> anyhow::Result<PathBuf> {
    listen::in_runtime_directory(Path::new(SOCKET))
}

fn read(path: &Path) -> anyhow::Result<Vec<ClientCount>> {
    let mut stream = UnixStream::connect(path).context("no sommelier runs here")?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .context("cannot read the counters")?;
    serde_json::from_str(&text).context("cannot understand the counters")
}

/// Returns what has happened between two looks at the counters, a line for each surface that drew.
fn table(before: &[ClientCount], now: &[ClientCount]) -> String {
    let old: HashMap<(i32, u64), SurfaceCount> = before
        .iter()
        .flat_map(|client| {
            client
                .surfaces
                .iter()
                .map(|(id, count)| ((client.pid, *id), *count))
        })
        .collect();
    let mut lines = format!(
        "{:>8} {:<16} {:>8} {:>6} {:>10} {:>9} {:>6}\n",
        "PID", "PROGRAM", "SURFACE", "FPS", "KIB/S", "TRIP US", "LATE"
    );
    for client in now {
        for (id, count) in &client.surfaces {
            let past = old.get(&(client.pid, *id)).copied().unwrap_or_default();
            let frames = count.frames.saturating_sub(past.frames);
            let kib = count.bytes.saturating_sub(past.bytes) / 1024;
            let trip = client
                .round_trip_us
                .map_or_else(|| "-".to_owned(), |us| us.to_string());
            lines += &format!(
                "{:>8} {:<16} {id:>8} {frames:>6} {kib:>10} {trip:>9} {:>6}\n",
                client.pid, client.name, client.held_frames
            );
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(frames: u64, bytes: u64) -> ClientCount {
        let surfaces = HashMap::from([(7, SurfaceCount { frames, bytes })]);
        let (pid, name) = (42, "foot".to_owned());
        ClientCount {
            pid,
            name,
            surfaces,
            round_trip_us: Some(120),
            ..ClientCount::default()
        }
    }

    #[test]
    fn top_shows_what_happened_since_the_last_look() {
        let text = table(&[client(10, 1024)], &[client(70, 1024 * 1025)]);
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["42", "foot", "7", "60", "1024", "120", "0"]);
    }
}
