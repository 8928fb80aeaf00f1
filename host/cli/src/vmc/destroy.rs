//! `vmc destroy`: a VM with all that is in it.

use clap::Args;
use wire::proto::DestroyVm;
use wire::{Bytes, Fault};

use super::{Call, Named};
use crate::client::answer;

/// Delete a VM with its disk and all containers on it
///
/// On a terminal it asks first; elsewhere -y is needed.
#[derive(Debug, Args)]
pub(super) struct Destroy {
    #[command(flatten)]
    vm: Named,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Also when it runs
    #[arg(short, long)]
    force: bool,
}

impl Destroy {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let client = call.client().await?;
        let vm = client.info(&self.vm.name).await?;
        if !self.yes {
            let question = format!(
                "delete VM {} and everything in it ({} on this host)?",
                vm.name,
                Bytes(vm.disk_host_bytes)
            );
            call.ui.confirm(&question, "-y").await?;
        }
        call.ui
            .under_way(format!("{} is still being deleted", vm.name));
        answer(client.vms().destroy(DestroyVm {
            vm: vm.name.clone(),
            force: self.force,
        }))
        .await?;
        call.ui.note(&format!("deleted VM {}", vm.name));
        Ok(())
    }
}
