//! `crosvm run`: one process is one virtual machine on KVM, told what to be by a specification.

use std::fs::File;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use spec::end::EngineEnd;
use spec::fd::InheritedFd;
use spec::vm::VmSpec;
use sys::inherited::Kind;

use crate::{control, machine};

/// Run one virtual machine.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The inherited descriptor from which the specification is read
    #[arg(long, value_name = "N")]
    spec_fd: i32,
}

/// Runs the machine until it ends; prints why it could not. The exit code says how it ended.
pub(crate) fn run(args: &RunArgs) -> ExitCode {
    let began = Instant::now();
    let end = live(InheritedFd(args.spec_fd), began).unwrap_or_else(|(end, error)| {
        tracing::error!("{error:#}");
        end
    });
    ExitCode::from(end.code())
}

fn live(spec_fd: InheritedFd, began: Instant) -> Result<EngineEnd, (EngineEnd, anyhow::Error)> {
    let failed = |end| move |error: anyhow::Error| (end, error);
    let file = sys::inherited::take(spec_fd.0, Kind::Message)
        .map_err(|error| failed(EngineEnd::Descriptor)(error.into()))?;
    let spec =
        VmSpec::read(File::from(file)).map_err(|error| failed(EngineEnd::Spec)(error.into()))?;
    let start_failed = |error: machine::StartError| (error.end(), anyhow::Error::from(error));
    let news = machine::news().map_err(start_failed)?;
    let heard = news
        .try_clone()
        .map_err(|error| failed(EngineEnd::Internal)(error.into()))?;
    warn_of_crowding(spec.vcpus);
    let (machine, control) = machine::start(&spec, news, began).map_err(start_failed)?;
    control::serve(machine, &heard, control)
        .map_err(|error| failed(EngineEnd::Internal)(error.into()))
}

/// More processors than the host has only slow each other down; it is allowed, and said.
fn warn_of_crowding(vcpus: u16) {
    let host = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
    if usize::from(vcpus) > host {
        tracing::warn!(
            vcpus,
            host,
            "the machine has more vCPUs than this host has processors"
        );
    }
}
