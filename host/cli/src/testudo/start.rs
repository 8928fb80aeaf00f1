//! `testudo start`: containers, and the VM below them.

use clap::Args;
use wire::{ContainerName, Fault};

use super::Call;
use crate::boot::{self, Missing};
use crate::completion;
use crate::options;
use crate::ui::Stages;

/// Start containers, and their VM if need be
#[derive(Debug, Args)]
pub(super) struct Start {
    /// The containers (default: the default one)
    #[arg(value_parser = options::container, add = completion::containers())]
    names: Vec<ContainerName>,
}

impl Start {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let names = call.containers(self.names)?;
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        boot::vm(&client, &vm, Missing::Refuse, &mut stages).await?;
        for name in &names {
            boot::container(&client, &vm, name, Missing::Refuse, &mut stages).await?;
        }
        stages.finish("started");
        Ok(())
    }
}
