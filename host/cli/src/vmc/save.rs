//! `vmc save`: put away as it is.

use clap::Args;
use wire::Fault;
use wire::proto::VmRef;

use super::{Call, Named};
use crate::ui::Stages;

/// Put a running VM away as it is
///
/// Its memory is written beside its disk and its processes end. The next start goes on from there: programs run on, but
/// shells, windows and connections of the network are gone. Only the engine crosvm can.
#[derive(Debug, Args)]
pub(super) struct Save {
    #[command(flatten)]
    vm: Named,
}

impl Save {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = self.vm.name;
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        stages.under_way(format!("{vm} is still being saved"));
        let save = VmRef { vm: vm.to_string() };
        if let Err(fault) = stages.follow(client.vms().save(save)).await {
            return Err(client.known_vms(fault, &vm).await);
        }
        stages.finish("saved");
        Ok(())
    }
}
