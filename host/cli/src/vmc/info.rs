//! `vmc info`: all that is known of one VM.

use clap::Args;
use wire::proto::{Vm, VmFigures};
use wire::{Bytes, Fault, Mib};

use super::{Call, Named};
use crate::json;
use crate::ui::{date, span};

/// Show all that is known of a VM
#[derive(Debug, Args)]
pub(super) struct Info {
    #[command(flatten)]
    vm: Named,
}

impl Info {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.client().await?.info(&self.vm.name).await?;
        if call.ui.json() {
            return call.ui.object("vm", &json::Vm::from(&vm));
        }
        call.ui.pairs(&pairs(&vm))
    }
}

fn pairs(vm: &Vm) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("name", vm.name.clone()),
        ("state", json::vm_state(vm.state()).to_owned()),
        ("processors", vm.cpus.to_string()),
        ("memory", Mib(vm.memory_mib).to_string()),
        (
            "disk",
            format!(
                "{}, {} on this host",
                Bytes(vm.disk_bytes),
                Bytes(vm.disk_host_bytes)
            ),
        ),
        ("created", date(vm.created_s)),
    ];
    if vm.pid != 0 {
        pairs.push(("started", date(vm.started_s)));
        pairs.push((
            "engine",
            format!("{} ({}), process {}", vm.engine, vm.engine_reason, vm.pid),
        ));
        pairs.push(("host memory", Bytes(vm.host_memory_bytes).to_string()));
    }
    if !vm.last_end.is_empty() {
        pairs.push(("last end", vm.last_end.clone()));
    }
    if let Some(figures) = &vm.figures {
        pairs.extend(guest(figures));
    }
    pairs
}

fn guest(figures: &VmFigures) -> Vec<(&'static str, String)> {
    let disk = figures.disk.unwrap_or_default();
    let mut pairs = vec![
        ("up", span(figures.uptime_us / 1_000_000)),
        (
            "boot",
            format!(
                "kernel {} ms, agent {} ms",
                figures.kernel_to_init_us / 1000,
                figures.init_to_ready_us / 1000
            ),
        ),
        (
            "guest memory",
            format!(
                "{} used, {} available of {}",
                Bytes(figures.memory_used_bytes),
                Bytes(figures.memory_available_bytes),
                Bytes(figures.memory_total_bytes)
            ),
        ),
        (
            "guest disk",
            format!(
                "{} used, {} available of {}",
                Bytes(disk.used_bytes),
                Bytes(disk.available_bytes),
                Bytes(disk.total_bytes)
            ),
        ),
        (
            "pressure",
            format!(
                "processor {:.1} %, memory {:.1} %, disk {:.1} %",
                figures.cpu_pressure, figures.memory_pressure, figures.io_pressure
            ),
        ),
        (
            "load",
            format!("{:.2}, {} processes", figures.load, figures.processes),
        ),
    ];
    if disk.device_errors > 0 {
        pairs.push(("disk errors", disk.device_errors.to_string()));
    }
    pairs
}
