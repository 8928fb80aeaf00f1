//! `testudo list`: the containers of the VMs that run.

use clap::Args;
use wire::proto::{Container, Empty, Vm, VmState};
use wire::{Bytes, Fault, VmName};

use super::Call;
use crate::client::{Client, answer};
use crate::json;
use crate::ui::Table;

/// List containers
///
/// Containers lie on their VM's disk, so those of a VM that does not run are not known; the VM is named instead.
/// Nothing is started. With -q only the names are printed.
#[derive(Debug, Args)]
pub(super) struct List {}

impl List {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let (vms, containers) = known(call).await?;
        if call.ui.json() {
            let mut each = containers.iter();
            return each.try_for_each(|(vm, found)| {
                call.ui.object("container", &json::Container::of(vm, found))
            });
        }
        if call.ui.quiet() {
            return containers
                .iter()
                .try_for_each(|(_, container)| call.ui.line(&container.name));
        }
        if !containers.is_empty() {
            call.ui.table(&table(&containers))?;
        }
        for vm in vms.iter().filter(|vm| vm.state() != VmState::Running) {
            call.ui.note(&format!(
                "VM {} is {}: its containers are not known until it runs (vmc start {0} --no-shell)",
                vm.name,
                json::vm_state(vm.state())
            ));
        }
        if vms.is_empty() {
            call.ui.note("there is nothing yet");
            call.ui.next("testudo");
        }
        Ok(())
    }
}

fn table(containers: &[(String, Container)]) -> Table {
    let mut table = Table::new(["NAME", "STATE", "VM", "SYSTEM", "ADDRESS", "MEMORY", "DISK"]);
    for (vm, container) in containers {
        let memory = match container.memory_bytes {
            0 => String::new(),
            bytes => Bytes(bytes).to_string(),
        };
        table.row([
            container.name.clone(),
            json::container_state(container.state()).to_owned(),
            vm.clone(),
            container.distribution.clone(),
            container.addresses.first().cloned().unwrap_or_default(),
            memory,
            Bytes(container.disk_bytes).to_string(),
        ]);
    }
    table
}

/// Returns the VMs that are meant and the containers of those that run, with their VM's name.
pub(super) async fn known(call: &Call<'_>) -> Result<(Vec<Vm>, Vec<(String, Container)>), Fault> {
    let client = call.client().await?;
    let mut vms = client.list().await?;
    if let Some(only) = &call.vm {
        vms.retain(|vm| vm.name == only.as_str());
        if vms.is_empty() {
            client.info(only).await?;
        }
    }
    let mut containers = Vec::new();
    for vm in vms.iter().filter(|vm| vm.state() == VmState::Running) {
        containers.extend(of(&client, vm).await?);
    }
    Ok((vms, containers))
}

async fn of(client: &Client, vm: &Vm) -> Result<Vec<(String, Container)>, Fault> {
    let name: VmName = vm.name.parse().map_err(|error| {
        Fault::new(
            wire::Kind::Internal,
            "E-NAME",
            "the daemon named a VM wrongly",
        )
        .because(&error)
    })?;
    let list = answer(client.containers(&name).list(Empty {})).await?;
    Ok(list
        .containers
        .into_iter()
        .map(|container| (vm.name.clone(), container))
        .collect())
}
