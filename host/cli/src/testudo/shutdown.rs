//! `testudo shutdown`: every VM, politely, and then the daemon.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use wire::proto::Empty;
use wire::{Fault, Kind};

use super::Call;
use crate::client::Client;
use crate::ui::Stages;

/// Longest time for a daemon of another version to stop its VMs and end.
const END_DEADLINE: Duration = Duration::from_secs(60);
/// Time between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Stop every VM, then the daemon
///
/// The next command starts it again.
#[derive(Debug, Args)]
pub(super) struct Shutdown {}

impl Shutdown {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let socket = call.places.socket();
        let client = match Client::connect(&call.places).await {
            Ok(Some(client)) => client,
            Ok(None) => {
                call.ui.note("the daemon does not run");
                return Ok(());
            }
            // It does not understand us, but it understands a signal.
            Err(fault) if fault.parts().code == "E-VERSION" => {
                return terminate(&socket, fault).await;
            }
            Err(fault) => return Err(fault),
        };
        let mut stages = Stages::new(call.ui);
        stages.under_way("the VMs and the daemon go on ending");
        let report = client.daemon().shutdown(Empty {}).await?;
        match stages.follow(std::future::ready(Ok(report))).await {
            // The daemon may be gone before the end of its report has reached us.
            Err(fault) if UnixStream::connect(&socket).is_ok() => Err(fault),
            _ => {
                stages.finish("ended");
                Ok(())
            }
        }
    }
}

/// Ends the daemon behind `socket` by a signal: it stops its VMs as if asked to.
async fn terminate(socket: &Path, reason: Fault) -> Result<(), Fault> {
    let refused = |error: io::Error| {
        Fault::from(reason.parts().clone())
            .while_doing("cannot end a daemon of another version")
            .because(&error)
    };
    let pid = daemon_at(socket).map_err(refused)?;
    kill_process(pid, Signal::TERM).map_err(|errno| refused(errno.into()))?;
    let ended = async {
        while UnixStream::connect(socket).is_ok() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(END_DEADLINE, ended)
        .await
        .map_err(|_| {
            Fault::new(Kind::Unreachable, "E-TIMEOUT", "the daemon has not ended").hint(format!(
                "to end it the hard way: kill -9 {}",
                pid.as_raw_nonzero()
            ))
        })
}

/// Returns the process that serves `socket`, if it is a concierge: where systemd listens, it is not.
fn daemon_at(socket: &Path) -> io::Result<Pid> {
    let stream = UnixStream::connect(socket)?;
    let pid = rustix::net::sockopt::socket_peercred(&stream)?.pid;
    let program = std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()))?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    // The kernel marks a program whose file an update has replaced.
    if name.trim_end_matches(" (deleted)") == "concierge" {
        Ok(pid)
    } else {
        Err(io::Error::other(format!(
            "process {} is no concierge but {name}",
            pid.as_raw_nonzero()
        )))
    }
}
