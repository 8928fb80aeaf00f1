//! `testudo restart`: stop, then start.

use clap::Args;
use wire::{ContainerName, Fault};

use super::{Call, stop};
use crate::boot::{self, Missing};
use crate::ui::Stages;
use crate::{completion, options};

/// Stop containers and start them again
#[derive(Debug, Args)]
pub(super) struct Restart {
    /// The containers (default: the default one)
    #[arg(value_parser = options::container, add = completion::containers())]
    names: Vec<ContainerName>,
    #[command(flatten)]
    how: stop::How,
}

impl Restart {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let names = call.containers(self.names)?;
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        boot::vm(&client, &vm, Missing::Refuse, &mut stages).await?;
        for name in &names {
            stages.under_way(stop::going(name));
            stages
                .stage("stop", stop::stop(&client, &vm, name, self.how))
                .await?;
            boot::container(&client, &vm, name, Missing::Refuse, &mut stages).await?;
        }
        stages.finish("restarted");
        Ok(())
    }
}
