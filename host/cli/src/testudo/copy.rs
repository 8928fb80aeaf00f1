//! `testudo copy`: a second container with the same files.

use clap::Args;
use wire::proto::CopyContainer;
use wire::{ContainerName, Fault};

use super::Call;
use crate::boot::{self, Missing};
use crate::ui::Stages;
use crate::{completion, options};

/// Copy a container
///
/// The copy shares the original's blocks until one of them changes, so it takes no time and no space at first.
#[derive(Debug, Args)]
pub(super) struct Copy {
    /// The container
    #[arg(value_parser = options::container, add = completion::containers())]
    name: ContainerName,
    /// The copy's name
    #[arg(value_parser = options::container)]
    new_name: ContainerName,
}

impl Copy {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        boot::vm(&client, &vm, Missing::Refuse, &mut stages).await?;
        let copy = CopyContainer {
            container: self.name.to_string(),
            new_name: self.new_name.to_string(),
        };
        stages.under_way(format!("the copy {} is still being made", self.new_name));
        if let Err(fault) = stages.follow(client.containers(&vm).copy(copy)).await {
            return Err(client.known_containers(fault, &vm, &self.name).await);
        }
        stages.finish("copied");
        call.ui
            .note(&format!("created container {}", self.new_name));
        call.ui.next(&format!("testudo shell {}", self.new_name));
        Ok(())
    }
}
