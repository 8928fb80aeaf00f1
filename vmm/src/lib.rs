//! `crosvm`: one process of the machine, chosen by its first argument, on the host.
//!
//! Concierge starts every one of them with a specification on an inherited descriptor and nothing else. It is a library for
//! the fuzz targets' sake (fuzz/), which reach it through `src/harness.rs`; the program is [`main`].

mod acpi;
mod balloon;
mod board;
mod console;
mod control;
mod cpu;
mod device;
mod event;
mod front_end;
mod handed;
#[cfg(fuzzing)]
pub mod harness;
mod interrupt;
mod ioapic;
mod jail;
mod kernel;
mod kvm;
mod local_queue;
mod machine;
mod memory;
mod pci;
mod power;
mod run;
mod snapshot;
mod virtio_device;
mod virtio_pci;
mod worker;

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
    /// Run one virtual machine
    Run(run::RunArgs),
    /// Serve one virtio device over vhost-user
    Device(device::DeviceArgs),
}

/// Is one process of the machine until it ends.
pub fn main() -> ExitCode {
    let levels = EnvFilter::try_from_env("TESTUDO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(levels)
        .with_writer(std::io::stderr)
        .init();
    match Crosvm::parse().process {
        Process::Run(args) => run::run(&args),
        Process::Device(args) => device::run(&args),
    }
}
