//! `testudo snapshot`: a container's files as they were.

use clap::{Args, Subcommand};
use wire::proto::{ContainerRef, SnapshotRef};
use wire::{ContainerName, Fault, SnapshotName, VmName};

use super::Call;
use crate::boot::{self, Missing};
use crate::client::{Client, answer};
use crate::ui::{Stages, Table, date};
use crate::{completion, json, options};

/// Keep a container's files as they are, and go back to them
#[derive(Debug, Args)]
pub(super) struct Snapshot {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a snapshot; also of a running container
    Create(Named),
    /// Go back to a snapshot; what changed since then is lost
    Restore(Named),
    /// List a container's snapshots
    #[command(visible_alias = "ls")]
    List(Owner),
    /// Delete a snapshot
    #[command(visible_alias = "rm")]
    Delete(Named),
}

#[derive(Debug, Args)]
struct Owner {
    /// The container
    #[arg(value_parser = options::container, add = completion::containers())]
    container: ContainerName,
}

#[derive(Debug, Args)]
struct Named {
    /// The container
    #[arg(value_parser = options::container, add = completion::containers())]
    container: ContainerName,
    /// The snapshot
    #[arg(value_parser = options::snapshot)]
    snapshot: SnapshotName,
}

impl Named {
    fn reference(&self) -> SnapshotRef {
        SnapshotRef {
            container: self.container.to_string(),
            snapshot: self.snapshot.to_string(),
        }
    }
}

impl Snapshot {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        boot::vm(&client, &vm, Missing::Refuse, &mut stages).await?;
        stages.finish("started");
        let fault = match carry_out(call, &client, &vm, &self.verb).await {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        Err(match &self.verb {
            Verb::List(owner) => client.known_containers(fault, &vm, &owner.container).await,
            Verb::Create(named) => client.known_containers(fault, &vm, &named.container).await,
            Verb::Restore(named) | Verb::Delete(named) => {
                let fault = client.known_containers(fault, &vm, &named.container).await;
                client
                    .known_snapshots(fault, &vm, (&named.container, &named.snapshot))
                    .await
            }
        })
    }
}

async fn carry_out(
    call: &Call<'_>,
    client: &Client,
    vm: &VmName,
    verb: &Verb,
) -> Result<(), Fault> {
    let mut containers = client.containers(vm);
    match verb {
        Verb::Create(named) => {
            answer(containers.snapshot(named.reference())).await?;
            call.ui.note(&format!(
                "made snapshot {} of {}",
                named.snapshot, named.container
            ));
        }
        Verb::Restore(named) => {
            answer(containers.restore(named.reference())).await?;
            call.ui.note(&format!(
                "{} is as it was at {}",
                named.container, named.snapshot
            ));
        }
        Verb::Delete(named) => {
            answer(containers.delete_snapshot(named.reference())).await?;
            call.ui.note(&format!(
                "deleted snapshot {} of {}",
                named.snapshot, named.container
            ));
        }
        Verb::List(owner) => {
            let named = ContainerRef {
                container: owner.container.to_string(),
            };
            let found = answer(containers.list_snapshots(named)).await?.snapshots;
            return list(call, &owner.container, &found);
        }
    }
    Ok(())
}

fn list(
    call: &Call<'_>,
    container: &ContainerName,
    found: &[wire::proto::Snapshot],
) -> Result<(), Fault> {
    if call.ui.json() {
        return found.iter().try_for_each(|snapshot| {
            let snapshot = json::Snapshot::of(container.as_str(), snapshot);
            call.ui.object("snapshot", &snapshot)
        });
    }
    if call.ui.quiet() {
        return found
            .iter()
            .try_for_each(|snapshot| call.ui.line(&snapshot.name));
    }
    if found.is_empty() {
        call.ui.note(&format!("{container} has no snapshots"));
        return Ok(());
    }
    let mut table = Table::new(["NAME", "CREATED"]);
    for snapshot in found {
        table.row([snapshot.name.clone(), date(snapshot.created_s)]);
    }
    call.ui.table(&table)
}
