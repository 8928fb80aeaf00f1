//! `testudo delete`: containers with all that is in them.

use clap::Args;
use wire::proto::{ContainerRef, DeleteContainer};
use wire::{Bytes, ContainerName, Fault};

use super::Call;
use crate::boot::{self, Missing};
use crate::client::answer;
use crate::ui::Stages;
use crate::{completion, options};

/// Delete containers, with their files and snapshots
///
/// On a terminal it asks first; elsewhere -y is needed.
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The containers
    #[arg(value_parser = options::container, required = true, add = completion::containers())]
    names: Vec<ContainerName>,
    /// Also when they run
    #[arg(short, long)]
    force: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Delete {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        boot::vm(&client, &vm, Missing::Refuse, &mut stages).await?;
        stages.finish("started");
        for name in &self.names {
            let named = ContainerRef {
                container: name.to_string(),
            };
            let found = match answer(client.containers(&vm).info(named)).await {
                Err(fault) => return Err(client.known_containers(fault, &vm, name).await),
                Ok(found) => found,
            };
            if !self.yes {
                let question = format!(
                    "delete container {name} with all its files ({}) and snapshots ({})?",
                    Bytes(found.disk_bytes),
                    found.snapshots
                );
                call.ui.confirm(&question, "-y").await?;
            }
            let delete = DeleteContainer {
                container: name.to_string(),
                force: self.force,
            };
            call.ui.under_way(format!("{name} is still being deleted"));
            answer(client.containers(&vm).delete(delete)).await?;
            call.ui.under_way("");
            call.ui.note(&format!("deleted container {name}"));
        }
        Ok(())
    }
}
