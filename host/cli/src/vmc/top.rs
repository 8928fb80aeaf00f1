//! What VMs and containers use, as tables; shown by `testudo top` and by `top` in crosh.

use wire::Bytes;
use wire::proto::{Container, Vm};

use crate::json;
use crate::ui::Table;

/// Returns the table of VMs.
pub(crate) fn vms(vms: &[Vm]) -> Table {
    let mut table = Table::new([
        "VM",
        "STATE",
        "HOST-MEM",
        "GUEST-MEM",
        "LOAD",
        "CPU%",
        "MEM%",
        "IO%",
        "PROCS",
    ]);
    for vm in vms {
        let figures = vm.figures.as_ref();
        let figure =
            |show: fn(&wire::proto::VmFigures) -> String| figures.map(show).unwrap_or_default();
        let host = match vm.host_memory_bytes {
            0 => String::new(),
            bytes => Bytes(bytes).to_string(),
        };
        table.row([
            vm.name.clone(),
            json::vm_state(vm.state()).to_owned(),
            host,
            figure(|f| Bytes(f.memory_used_bytes).to_string()),
            figure(|f| format!("{:.2}", f.load)),
            figure(|f| format!("{:.1}", f.cpu_pressure)),
            figure(|f| format!("{:.1}", f.memory_pressure)),
            figure(|f| format!("{:.1}", f.io_pressure)),
            figure(|f| f.processes.to_string()),
        ]);
    }
    table
}

/// Returns the table of containers, which come with their VM's name.
pub(crate) fn containers(containers: &[(String, Container)]) -> Table {
    let mut table = Table::new(["CONTAINER", "VM", "STATE", "MEMORY", "DISK", "PROCS"]);
    for (vm, container) in containers {
        table.row([
            container.name.clone(),
            vm.clone(),
            json::container_state(container.state()).to_owned(),
            Bytes(container.memory_bytes).to_string(),
            Bytes(container.disk_bytes).to_string(),
            container.processes.to_string(),
        ]);
    }
    table
}
