//! `wayland-hostd`: the host end of a VM's windows, one process for each VM, jailed by itself. It
//! alone talks to the compositor for the VM, and decides what the VM may do there.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use spec::windows::WindowsSpec;
use sys::inherited::{self, Kind};

use wayland_hostd::ask::Asks;
use wayland_hostd::security_context::Marked;
use wayland_hostd::serve::Server;
use wayland_hostd::vm::Vm;
use wayland_hostd::{jail, security_context};

/// The longest specification: a few hundred bytes, and a list of types.
const MAX_SPEC_LEN: u64 = 64 * 1024;

/// The socket on which the compositor takes clients as marked ones.
const MARKED_SOCKET: &str = "marked";

#[derive(Debug, Parser)]
#[command(version, about = "Shows the windows of one VM; started by concierge")]
struct Arguments {
    /// The inherited descriptor from which the specification is read to its end.
    #[arg(long)]
    spec_fd: RawFd,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TESTUDO_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let spec = read_spec(arguments.spec_fd)?;
    let listener = inherited::take(spec.listener.0, Kind::Listening)?;
    let directory = inherited::take(spec.directory.0, Kind::Directory)?;
    let control = spec
        .control
        .map(|fd| inherited::take(fd.0, Kind::Connected))
        .transpose()?;
    let marked = mark(&spec, &directory)?;
    let asks = control.map_or_else(Asks::nobody, Asks::to);
    let vm = Vm::new(spec.vm.clone(), spec.policy.clone(), asks);
    // The jail's root is the directory, and the place where we stand in it.
    let compositor = PathBuf::from(if marked.is_some() {
        MARKED_SOCKET
    } else {
        &spec.compositor
    });
    jail::enter(directory)?;
    tracing::info!(
        vm = spec.vm,
        marked = marked.is_some(),
        "windows are served"
    );
    Server {
        vm,
        listener,
        compositor,
        direct: spec.direct,
    }
    .run()
}

fn read_spec(fd: RawFd) -> anyhow::Result<WindowsSpec> {
    let message = File::from(inherited::take(fd, Kind::Message)?);
    let mut text = String::new();
    message
        .take(MAX_SPEC_LEN)
        .read_to_string(&mut text)
        .context("cannot read the specification")?;
    serde_json::from_str(&text).context("cannot understand the specification")
}

/// Has the compositor mark this VM's clients, if it can; for that it gets a second socket in the
/// directory, which the jail will show.
fn mark(spec: &WindowsSpec, directory: &OwnedFd) -> anyhow::Result<Option<Marked>> {
    let here = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let (compositor, socket) = (here.join(&spec.compositor), here.join(MARKED_SOCKET));
    security_context::register(&compositor, &socket, (&spec.policy.app_id_prefix, &spec.vm))
}
