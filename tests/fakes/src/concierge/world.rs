//! What the fake daemon has: two VMs, of which one runs and holds two containers. Every number is fixed, so that
//! what a client prints of it is too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use wire::Fault;
use wire::proto::{
    Container, ContainerState, CreateContainerHeader, DiskFigures, Snapshot, Vm, VmFigures, VmState,
};

/// 2026-01-02 03:04 UTC.
const CREATED_S: u64 = 1_767_323_040;
const MIB: u64 = 1 << 20;

/// The VMs and containers, and what clients did.
#[derive(Debug, Clone)]
pub struct World {
    /// All VMs.
    pub vms: Vec<Vm>,
    /// The containers of each VM.
    pub containers: BTreeMap<String, Vec<Container>>,
    /// The snapshots of every container alike.
    pub snapshots: Vec<Snapshot>,
    /// What every log says.
    pub log: Vec<u8>,
    /// What every export consists of.
    pub export: Vec<u8>,
    /// Where the running VM's vsock listens.
    pub vsock: PathBuf,
    /// Calls that are refused, by name.
    pub refusals: BTreeMap<String, Fault>,
    /// The calls so far, each with what it was about.
    pub calls: Vec<String>,
    /// Time between two events of a report; read when the daemon starts.
    pub pace: Duration,
    /// Headers of containers that were made, and their files.
    pub made: Vec<(CreateContainerHeader, Vec<Vec<u8>>)>,
}

impl World {
    /// Returns the world; `vsock` is the running VM's.
    #[must_use]
    pub fn new(vsock: PathBuf) -> Self {
        let penguin = container("penguin", ContainerState::Running);
        let mut dev = container("dev", ContainerState::Stopped);
        dev.distribution = "Fedora Linux 42".to_owned();
        Self {
            vms: vec![running_vm("termina"), stopped_vm("lab")],
            containers: BTreeMap::from([("termina".to_owned(), vec![dev, penguin])]),
            snapshots: vec![Snapshot {
                name: "clean".to_owned(),
                created_s: CREATED_S,
            }],
            log: b"booted\n".to_vec(),
            export: b"exported bytes".to_vec(),
            vsock,
            refusals: BTreeMap::new(),
            calls: Vec::new(),
            pace: Duration::ZERO,
            made: Vec::new(),
        }
    }

    /// Returns a world in which nothing was made yet.
    #[must_use]
    pub fn empty(vsock: PathBuf) -> Self {
        Self {
            vms: Vec::new(),
            containers: BTreeMap::new(),
            ..Self::new(vsock)
        }
    }

    pub(super) fn vm(&mut self, name: &str) -> Option<&mut Vm> {
        self.vms.iter_mut().find(|vm| vm.name == name)
    }

    pub(super) fn container(&mut self, vm: &str, name: &str) -> Option<&mut Container> {
        self.containers
            .get_mut(vm)?
            .iter_mut()
            .find(|container| container.name == name)
    }
}

pub(super) fn stopped_vm(name: &str) -> Vm {
    Vm {
        name: name.to_owned(),
        state: VmState::Stopped.into(),
        cpus: 2,
        memory_mib: 2048,
        disk_bytes: 20 << 30,
        disk_host_bytes: 700 * MIB,
        created_s: CREATED_S,
        ..Vm::default()
    }
}

pub(super) fn running_vm(name: &str) -> Vm {
    Vm {
        state: VmState::Running.into(),
        engine: "qemu".to_owned(),
        engine_reason: "no hardware virtualisation".to_owned(),
        started_s: CREATED_S + 60,
        pid: 4242,
        cid: 3,
        host_memory_bytes: 300 * MIB,
        figures: Some(VmFigures {
            memory_total_bytes: 2000 * MIB,
            memory_available_bytes: 1900 * MIB,
            memory_used_bytes: 80 * MIB,
            memory_pressure: 0.5,
            cpu_pressure: 1.5,
            io_pressure: 0.25,
            uptime_us: 3_725_000_000,
            kernel_to_init_us: 512_000,
            init_to_ready_us: 230_000,
            disk: Some(DiskFigures {
                total_bytes: 20 << 30,
                used_bytes: 500 * MIB,
                available_bytes: 19 << 30,
                device_errors: 0,
            }),
            processes: 31,
            load: 0.25,
        }),
        ..stopped_vm(name)
    }
}

pub(super) fn container(name: &str, state: ContainerState) -> Container {
    let running = state == ContainerState::Running;
    Container {
        name: name.to_owned(),
        state: state.into(),
        distribution: "Debian GNU/Linux 13 (trixie)".to_owned(),
        user: "anna".to_owned(),
        created_s: CREATED_S,
        addresses: if running {
            vec!["100.115.93.2".to_owned()]
        } else {
            Vec::new()
        },
        disk_bytes: 12 * MIB,
        memory_bytes: if running { 45 * MIB } else { 0 },
        processes: if running { 17 } else { 0 },
        snapshots: 1,
    }
}
