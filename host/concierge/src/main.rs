//! `concierge`, the daemon on the host: owns every VM's life, disk and name, and is the only parent of the processes
//! that run one. Clients reach it by gRPC on a socket that only this user can open.
//!
//! Without arguments it serves the socket that systemd hands it, or its own; with `--detached` clients start it.

use std::io::Write;
use std::process::ExitCode;

use prost::Message;
use tracing_subscriber::EnvFilter;
use wire::{Fault, Kind, proto};

mod child;
mod disk;
mod engine;
mod guest;
mod image;
mod life;
mod log;
mod network;
mod peers;
mod programs;
mod progress;
mod serve;
mod vm;
mod world;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("TESTUDO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [] => run(false),
        [one] if one == link::daemon::DETACHED => run(true),
        _ => Err(
            Fault::new(Kind::Invalid, "E-USAGE", "concierge takes no arguments")
                .hint("it is started by testudo, vmc and vsh, or by systemd"),
        ),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            tracing::error!(causes = ?fault.parts().causes, "{fault}");
            // The client that started us reads this; without one, standard output leads nowhere.
            let bytes = proto::Fault::from(fault).encode_to_vec();
            let _heard = std::io::stdout().write_all(&bytes);
            ExitCode::FAILURE
        }
    }
}

/// Runs on one thread, which therefore lives as long as the process: children are tied to it.
fn run(detached: bool) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::internal(&error))?;
    let outcome = runtime.block_on(life::live(detached));
    // A thread that still copies a disk must not keep the daemon from ending; what it makes has no name yet.
    runtime.shutdown_background();
    outcome
}
