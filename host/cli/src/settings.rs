//! Changing a VM's processors, memory and clipboard; `testudo set` and `vmc set` are the same.

use wire::proto::{ClipboardDirections, SetVm};
use wire::{Fault, VmName};

use crate::client::{Client, answer};
use crate::options::Setting;
use crate::ui::Ui;

/// Applies `settings` to `vm` and says whether they hold at once.
pub(crate) async fn apply(
    ui: &Ui,
    client: &Client,
    vm: &VmName,
    settings: &[Setting],
) -> Result<(), Fault> {
    let mut set = SetVm {
        vm: vm.to_string(),
        cpus: None,
        memory_mib: None,
        clipboard: None,
    };
    for setting in settings {
        match setting {
            Setting::Cpus(cpus) => set.cpus = Some(*cpus),
            Setting::Memory(memory) => set.memory_mib = Some(memory.0),
            Setting::Clipboard {
                to_guest,
                to_host,
                mode,
            } => {
                set.clipboard = Some(ClipboardDirections {
                    to_guest: *to_guest,
                    to_host: *to_host,
                    mode: (*mode).into(),
                });
            }
        }
    }
    let reply = match answer(client.vms().set(set)).await {
        Err(fault) => return Err(client.known_vms(fault, vm).await),
        Ok(reply) => reply,
    };
    if ui.json() {
        return ui.object(
            "set",
            &serde_json::json!({ "vm": vm, "at_next_start": reply.at_next_start }),
        );
    }
    if reply.at_next_start {
        ui.note("applies at the VM's next start");
        ui.next(&format!("vmc stop {vm} && vmc start {vm}"));
    } else {
        ui.note("applied");
    }
    Ok(())
}
