//! `vmc resize`: a larger disk.

use clap::Args;
use wire::proto::ResizeVm;
use wire::{Bytes, Fault};

use super::{Call, Named};
use crate::options;
use crate::ui::Stages;

/// Change the size of a VM's disk
///
/// A running VM uses the new space at once.
#[derive(Debug, Args)]
pub(super) struct Resize {
    #[command(flatten)]
    vm: Named,
    /// The new size, such as 40G
    #[arg(value_parser = options::size)]
    size: Bytes,
}

impl Resize {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = self.vm.name;
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        let resize = ResizeVm {
            vm: vm.to_string(),
            disk_bytes: self.size.0,
        };
        stages.under_way(format!("the disk of {vm} goes on growing"));
        if let Err(fault) = stages.follow(client.vms().resize(resize)).await {
            return Err(client.known_vms(fault, &vm).await);
        }
        stages.finish("resized");
        call.ui.note(&format!("the disk of {vm} has {}", self.size));
        Ok(())
    }
}
