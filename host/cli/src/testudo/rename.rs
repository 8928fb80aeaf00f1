//! `testudo rename`: another name for a container.

use clap::Args;
use wire::proto::RenameContainer;
use wire::{ContainerName, Fault};

use super::Call;
use crate::boot::{self, Missing};
use crate::client::answer;
use crate::ui::Stages;
use crate::{completion, options};

/// Rename a stopped container
#[derive(Debug, Args)]
pub(super) struct Rename {
    /// The container
    #[arg(value_parser = options::container, add = completion::containers())]
    name: ContainerName,
    /// Its new name
    #[arg(value_parser = options::container)]
    new_name: ContainerName,
}

impl Rename {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        boot::vm(&client, &vm, Missing::Refuse, &mut stages).await?;
        stages.finish("started");
        let rename = RenameContainer {
            container: self.name.to_string(),
            new_name: self.new_name.to_string(),
        };
        match answer(client.containers(&vm).rename(rename)).await {
            Err(fault) => Err(client.known_containers(fault, &vm, &self.name).await),
            Ok(_) => {
                call.ui
                    .note(&format!("{} is now {}", self.name, self.new_name));
                Ok(())
            }
        }
    }
}
