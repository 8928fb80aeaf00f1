//! What `--json` prints: the one place that says which fields there are. docs/json.md documents them, and
//! `tests/json.rs` compares its examples with what the program prints.

use serde::Serialize;
use wire::proto::progress::Event;
use wire::proto::{self, ContainerState, VmState};

/// Version of the schema: it grows when a field goes away or changes its meaning, not when one is added.
pub(crate) const VERSION: u32 = 1;

/// A VM.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Vm {
    name: String,
    state: &'static str,
    engine: String,
    engine_reason: String,
    cpus: u32,
    memory_mib: u32,
    disk_bytes: u64,
    disk_host_bytes: u64,
    created_s: u64,
    started_s: u64,
    pid: u32,
    cid: u32,
    host_memory_bytes: u64,
    last_end: String,
    figures: Option<Figures>,
}

/// What the guest says of itself.
#[derive(Debug, Clone, Serialize)]
struct Figures {
    memory_total_bytes: u64,
    memory_available_bytes: u64,
    memory_used_bytes: u64,
    memory_pressure: f32,
    cpu_pressure: f32,
    io_pressure: f32,
    uptime_us: u64,
    kernel_to_init_us: u64,
    init_to_ready_us: u64,
    disk_total_bytes: u64,
    disk_used_bytes: u64,
    disk_available_bytes: u64,
    disk_errors: u64,
    processes: u32,
    load: f32,
}

/// A container.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Container {
    name: String,
    vm: String,
    state: &'static str,
    distribution: String,
    user: String,
    created_s: u64,
    addresses: Vec<String>,
    disk_bytes: u64,
    memory_bytes: u64,
    processes: u32,
    snapshots: u32,
}

/// A snapshot.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Snapshot {
    name: String,
    container: String,
    created_s: u64,
}

/// One line of a stream.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) kind: &'static str,
    pub(crate) body: serde_json::Value,
}

impl From<&proto::Vm> for Vm {
    fn from(vm: &proto::Vm) -> Self {
        Self {
            name: vm.name.clone(),
            state: vm_state(vm.state()),
            engine: vm.engine.clone(),
            engine_reason: vm.engine_reason.clone(),
            cpus: vm.cpus,
            memory_mib: vm.memory_mib,
            disk_bytes: vm.disk_bytes,
            disk_host_bytes: vm.disk_host_bytes,
            created_s: vm.created_s,
            started_s: vm.started_s,
            pid: vm.pid,
            cid: vm.cid,
            host_memory_bytes: vm.host_memory_bytes,
            last_end: vm.last_end.clone(),
            figures: vm.figures.as_ref().map(Figures::from),
        }
    }
}

impl From<&proto::VmFigures> for Figures {
    fn from(figures: &proto::VmFigures) -> Self {
        let disk = figures.disk.unwrap_or_default();
        Self {
            memory_total_bytes: figures.memory_total_bytes,
            memory_available_bytes: figures.memory_available_bytes,
            memory_used_bytes: figures.memory_used_bytes,
            memory_pressure: figures.memory_pressure,
            cpu_pressure: figures.cpu_pressure,
            io_pressure: figures.io_pressure,
            uptime_us: figures.uptime_us,
            kernel_to_init_us: figures.kernel_to_init_us,
            init_to_ready_us: figures.init_to_ready_us,
            disk_total_bytes: disk.total_bytes,
            disk_used_bytes: disk.used_bytes,
            disk_available_bytes: disk.available_bytes,
            disk_errors: disk.device_errors,
            processes: figures.processes,
            load: figures.load,
        }
    }
}

impl Container {
    /// Returns `container` of the VM named `vm`.
    pub(crate) fn of(vm: &str, container: &proto::Container) -> Self {
        Self {
            name: container.name.clone(),
            vm: vm.to_owned(),
            state: container_state(container.state()),
            distribution: container.distribution.clone(),
            user: container.user.clone(),
            created_s: container.created_s,
            addresses: container.addresses.clone(),
            disk_bytes: container.disk_bytes,
            memory_bytes: container.memory_bytes,
            processes: container.processes,
            snapshots: container.snapshots,
        }
    }
}

impl Snapshot {
    /// Returns `snapshot` of the container named `container`.
    pub(crate) fn of(container: &str, snapshot: &proto::Snapshot) -> Self {
        Self {
            name: snapshot.name.clone(),
            container: container.to_owned(),
            created_s: snapshot.created_s,
        }
    }
}

/// Returns the line for one piece of progress.
pub(crate) fn progress(event: &Event) -> Line {
    let (kind, body) = match event {
        Event::Stage(stage) => (
            "stage",
            serde_json::json!({ "name": stage.name, "elapsed_us": stage.elapsed_us }),
        ),
        Event::Fraction(fraction) => (
            "fraction",
            serde_json::json!({ "done": fraction.done, "total": fraction.total }),
        ),
        Event::Note(text) => ("note", serde_json::json!({ "text": text })),
    };
    Line { kind, body }
}

/// Returns a VM state's word.
pub(crate) fn vm_state(state: VmState) -> &'static str {
    match state {
        VmState::Stopped => "stopped",
        VmState::Starting => "starting",
        VmState::Running => "running",
        VmState::Stopping => "stopping",
        VmState::Saved => "saved",
        VmState::DiskBusy => "disk-busy",
    }
}

/// Returns a container state's word.
pub(crate) fn container_state(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Stopped => "stopped",
        ContainerState::Starting => "starting",
        ContainerState::Running => "running",
        ContainerState::Stopping => "stopping",
        ContainerState::Broken => "broken",
    }
}
