//! One session, in its own process: reads what is wanted, starts it, and carries bytes until it ends.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdin, stdin};
use wire::proto::vsh_reply::Reply;
use wire::proto::vsh_request::Request;
use wire::{Fault, Kind};

use super::client::Client;
use super::launch::{Launch, launch};
use super::pump;
use super::target::Target;
use super::windows;
use crate::boot::CommandLine;
use crate::container::Containers;
use crate::fault::OrFault;
use crate::log;

/// A host that has connected says at once what it wants.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the process that the agent has started with a connection as standard input.
pub(crate) fn run() -> ExitCode {
    let _ = rustix::thread::set_name(c"vshd-session");
    log::start(CommandLine::read().log.as_deref());
    match take_connection() {
        Ok(connection) => serve(&mut Client::new(connection), &Containers::on_disk()),
        Err(error) => {
            tracing::error!("the session has no connection: {error}");
            ExitCode::FAILURE
        }
    }
}

fn take_connection() -> std::io::Result<OwnedFd> {
    let connection = fcntl_dupfd_cloexec(stdin(), 3)?;
    rustix::io::ioctl_fionbio(&connection, true)?;
    dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(connection)
}

/// Serves the whole session. Also returns in the processes that it forks, with the code they exit with.
pub(super) fn serve(client: &mut Client, containers: &Containers) -> ExitCode {
    let started = begin(client, containers);
    match started {
        Ok(Launch::Child(code)) => code,
        Ok(Launch::Running(mut running)) => {
            client.queue(Reply::Started(running.started()));
            if let Err(error) = pump::run(client, &mut running) {
                tracing::debug!("session ended early: {error}");
            }
            ExitCode::SUCCESS
        }
        Err(fault) => {
            client.queue(Reply::Failed(fault.into()));
            let _ = client.flush();
            ExitCode::SUCCESS
        }
    }
}

fn begin(client: &mut Client, containers: &Containers) -> Result<Launch, Fault> {
    let message = || "cannot read what the session is for".to_owned();
    let first = client
        .receive(SETUP_TIMEOUT)
        .or_fault("E-SESSION", message)?;
    let Some(Request::Setup(setup)) = first else {
        return Err(Fault::new(
            Kind::Invalid,
            "E-SESSION",
            "the session does not begin with a setup",
        ));
    };
    let target = Target::of(setup, containers)?;
    if target.has_desktop
        && let Some(code) = windows::ensure(&target)
    {
        return Ok(Launch::Child(code));
    }
    launch(&target)
}
