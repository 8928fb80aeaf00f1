//! `crosvm`: one process of the machine, chosen by its first argument, on the host.
//!
//! Concierge starts every one of them with a specification on an inherited descriptor and nothing else.

mod device;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// The virtual machine monitor and its devices, each a process of its own.
#[derive(Debug, Parser)]
#[command(version)]
struct Crosvm {
    #[command(subcommand)]
    process: Process,
}

/// What this process is.
#[derive(Debug, Subcommand)]
enum Process {
    /// Serve one virtio device over vhost-user
    Device(device::DeviceArgs),
}

fn main() -> ExitCode {
    let levels = EnvFilter::try_from_env("TESTUDO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(levels).with_writer(std::io::stderr).init();
    match Crosvm::parse().process {
        Process::Device(args) => device::run(&args),
    }
}
