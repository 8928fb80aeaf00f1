//! `vmc list`: all VMs.

use clap::Args;
use wire::{Bytes, Fault, Mib};

use super::Call;
use crate::json;
use crate::ui::Table;

/// List VMs
///
/// HOST is what the disk takes here, SIZE what the guest may use. With -q only the names are printed.
#[derive(Debug, Args)]
pub(super) struct List {}

impl List {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vms = call.client().await?.list().await?;
        if call.ui.json() {
            return vms
                .iter()
                .try_for_each(|vm| call.ui.object("vm", &json::Vm::from(vm)));
        }
        if call.ui.quiet() {
            return vms.iter().try_for_each(|vm| call.ui.line(&vm.name));
        }
        if vms.is_empty() {
            call.ui.note("there is no VM yet");
            call.ui.next("vmc start termina");
            return Ok(());
        }
        let mut table = Table::new(["NAME", "STATE", "CPUS", "MEMORY", "SIZE", "HOST", "ENGINE"]);
        for vm in &vms {
            table.row([
                vm.name.clone(),
                json::vm_state(vm.state()).to_owned(),
                vm.cpus.to_string(),
                Mib(vm.memory_mib).to_string(),
                Bytes(vm.disk_bytes).to_string(),
                Bytes(vm.disk_host_bytes).to_string(),
                vm.engine.clone(),
            ]);
        }
        call.ui.table(&table)?;
        let total = vms
            .iter()
            .map(|vm| vm.disk_host_bytes)
            .fold(0, u64::saturating_add);
        call.ui
            .note(&format!("total on this host: {}", Bytes(total)));
        Ok(())
    }
}
