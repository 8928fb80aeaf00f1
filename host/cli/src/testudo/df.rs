//! `testudo df`: what disks take, on the host and as their guests see it.

use clap::Args;
use wire::proto::Vm;
use wire::{Bytes, Fault};

use super::{Call, list};
use crate::ui::Table;

/// Show what disks take
///
/// SIZE is what the guest may use, USED what it does, HOST what that takes here, and RECLAIMABLE what is free in
/// the guest and not yet given back. A container counts what it does not share with others or the base.
#[derive(Debug, Args)]
pub(super) struct Df {}

struct Row {
    name: String,
    kind: &'static str,
    size: Option<u64>,
    used: Option<u64>,
    host: Option<u64>,
    reclaimable: Option<u64>,
}

impl Df {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let (vms, containers) = list::known(call).await?;
        let mut rows = Vec::new();
        for vm in &vms {
            rows.push(row(vm));
            let own = containers.iter().filter(|(of, _)| *of == vm.name);
            rows.extend(own.map(|(vm, container)| Row {
                name: format!("{vm}/{}", container.name),
                kind: "container",
                size: None,
                used: Some(container.disk_bytes),
                host: None,
                reclaimable: None,
            }));
        }
        if call.ui.json() {
            return rows
                .iter()
                .try_for_each(|row| call.ui.object("disk", &row.json()));
        }
        if call.ui.quiet() {
            return rows.iter().try_for_each(|row| call.ui.line(&row.name));
        }
        let mut table = Table::new(["NAME", "KIND", "SIZE", "USED", "HOST", "RECLAIMABLE"]);
        for row in rows {
            let bytes =
                |bytes: Option<u64>| bytes.map(|b| Bytes(b).to_string()).unwrap_or_default();
            table.row([
                row.name,
                row.kind.to_owned(),
                bytes(row.size),
                bytes(row.used),
                bytes(row.host),
                bytes(row.reclaimable),
            ]);
        }
        call.ui.table(&table)
    }
}

fn row(vm: &Vm) -> Row {
    let used = vm
        .figures
        .as_ref()
        .and_then(|f| f.disk)
        .map(|disk| disk.used_bytes);
    Row {
        name: vm.name.clone(),
        kind: "vm",
        size: Some(vm.disk_bytes),
        used,
        host: Some(vm.disk_host_bytes),
        reclaimable: used.map(|used| vm.disk_host_bytes.saturating_sub(used)),
    }
}

impl Row {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name,
            "kind": self.kind,
            "size_bytes": self.size,
            "used_bytes": self.used,
            "host_bytes": self.host,
            "reclaimable_bytes": self.reclaimable,
        })
    }
}
