//! `testudo stop`: containers; their VM runs on.

use std::time::Duration;

use clap::Args;
use wire::proto::StopContainer;
use wire::{ContainerName, Fault, VmName};

use super::Call;
use crate::client::{Client, answer};
use crate::{completion, options};

/// Stop containers
///
/// Asks the container's init to end, and kills it when that takes too long. The VM runs on: vmc stop ends it.
#[derive(Debug, Args)]
pub(super) struct Stop {
    /// The containers (default: the default one)
    #[arg(value_parser = options::container, add = completion::containers())]
    names: Vec<ContainerName>,
    #[command(flatten)]
    how: How,
}

/// How to stop a container.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct How {
    /// Seconds to wait before it is killed (default: 10)
    #[arg(long, value_parser = options::seconds, value_name = "SECONDS")]
    timeout: Option<Duration>,
    /// Kill it at once
    #[arg(long, conflicts_with = "timeout")]
    kill: bool,
}

impl Stop {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let names = call.containers(self.names)?;
        let client = call.client().await?;
        client.info(&vm).await?;
        if !client.runs(&vm).await? {
            call.ui
                .note(&format!("VM {vm} does not run, nor does what is in it"));
            return Ok(());
        }
        for name in &names {
            call.ui.under_way(going(name));
            stop(&client, &vm, name, self.how).await?;
            call.ui.under_way("");
            call.ui.note(&format!("stopped {name}"));
        }
        Ok(())
    }
}

/// Says what goes on when nobody waits for the stop.
pub(super) fn going(name: &ContainerName) -> String {
    format!("{name} goes on stopping; to end it at once: testudo stop --kill {name}")
}

/// Stops one container of a running VM.
pub(super) async fn stop(
    client: &Client,
    vm: &VmName,
    name: &ContainerName,
    how: How,
) -> Result<(), Fault> {
    let timeout = how.timeout.unwrap_or_default().as_millis();
    let stop = StopContainer {
        container: name.to_string(),
        timeout_ms: u32::try_from(timeout).unwrap_or(u32::MAX),
        kill: how.kill,
    };
    match answer(client.containers(vm).stop(stop)).await {
        Err(fault) => Err(client.known_containers(fault, vm, name).await),
        Ok(_) => Ok(()),
    }
}
