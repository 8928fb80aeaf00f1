//! `vmc create`: a new VM and its disk.

use clap::Args;
use wire::proto::CreateVm;
use wire::{Bytes, Fault, Mib, VmName};

use super::Call;
use crate::options;
use crate::ui::Stages;

/// Create a VM and its disk
///
/// The disk is sparse: it takes on the host what is used in it.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// The new VM's name
    #[arg(value_parser = options::vm)]
    name: VmName,
    /// Size of its disk, such as 20G (default: as configured)
    #[arg(long, value_parser = options::size)]
    size: Option<Bytes>,
    /// Processors (default: as configured)
    #[arg(long)]
    cpus: Option<u32>,
    /// Memory, such as 4G (default: as configured)
    #[arg(long)]
    memory: Option<Mib>,
}

impl Create {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let create = CreateVm {
            vm: self.name.to_string(),
            disk_bytes: self.size.map_or(0, |size| size.0),
            cpus: self.cpus.unwrap_or(0),
            memory_mib: self.memory.map_or(0, |memory| memory.0),
        };
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        stages.under_way(format!(
            "{0} is still being made; to delete it: vmc destroy {0}",
            self.name
        ));
        stages.follow(client.vms().create(create)).await?;
        stages.finish("created");
        call.ui.note(&format!("created VM {}", self.name));
        call.ui.next(&format!("vmc start {}", self.name));
        Ok(())
    }
}
