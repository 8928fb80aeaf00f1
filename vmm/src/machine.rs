//! One virtual machine on the host, from its specification to its end.

pub(crate) mod slots;

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use kvm_ioctls::{Kvm, VmFd};
use spec::control::Info;
use spec::end::EngineEnd;
use spec::units::Mib;
use spec::vm::{Device, VmSpec};
use sys::jail::JailError;
use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::slots::{Attached, Plugged, Slots};
use crate::balloon::Gauge;
use crate::board::Board;
use crate::console::Console;
use crate::cpu::run::{Processors, Yard};
use crate::cpu::{self, CpuError};
use crate::front_end::AttachError;
use crate::handed::{Handed, HandedError};
use crate::interrupt::{KvmSwitchboard, Lines};
use crate::ioapic::{ACPI_EVENT_PIN, IoApic};
use crate::jail;
use crate::kernel::{self, KernelError};
use crate::kvm::{self, KvmError};
use crate::memory::layout::{ECAM_SIZE, ECAM_START, ram_regions};
use crate::memory::{Memory, MemoryError, Shadow, backing};
use crate::pci::bus::{Bus, lock};
use crate::power::Power;
use crate::snapshot::{Snapshot, SnapshotError};
use crate::virtio_pci::Wiring;

/// KVM's memory slot for the copy of configuration space; guest memory has the first two.
const SHADOW_SLOT: u32 = 2;

/// Why a machine did not start.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error("cannot take what the specification hands over")]
    Handed(#[from] HandedError),
    #[error("cannot use KVM")]
    Kvm(#[from] KvmError),
    #[error("cannot make guest memory")]
    Memory(#[from] MemoryError),
    #[error("cannot make the processors")]
    Cpu(#[from] CpuError),
    #[error("cannot attach a device")]
    Attach(#[from] AttachError),
    #[error("cannot load the kernel")]
    Kernel(#[from] KernelError),
    #[error("cannot go on from the snapshot")]
    Snapshot(#[from] SnapshotError),
    #[error("cannot enter the jail")]
    Jail(#[from] JailError),
    #[error("cannot {act}")]
    Host {
        act: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot plug a device in: the bus is full")]
    NoSlot,
}

impl StartError {
    /// Returns the exit code's name for this error.
    pub(crate) fn end(&self) -> EngineEnd {
        match self {
            Self::Handed(_) => EngineEnd::Descriptor,
            Self::Cpu(CpuError::OtherProcessor | CpuError::Register(_)) | Self::Snapshot(_) => {
                EngineEnd::Snapshot
            }
            Self::Kvm(_) | Self::Cpu(_) => EngineEnd::Kvm,
            Self::Memory(_) => EngineEnd::Memory,
            Self::Attach(_) => EngineEnd::Device,
            Self::Kernel(_) => EngineEnd::Kernel,
            Self::Jail(_) => EngineEnd::Jail,
            Self::Host { .. } | Self::NoSlot => EngineEnd::Internal,
        }
    }
}

/// A machine whose processors run.
pub(crate) struct Machine {
    /// The processors.
    pub(crate) processors: Processors,
    /// How the machine ends.
    pub(crate) yard: Arc<Yard>,
    /// What the processors reach.
    pub(crate) board: Arc<Board>,
    /// The devices that daemons serve.
    pub(crate) devices: Vec<Attached>,
    /// The balloon with its place on the bus.
    pub(crate) balloon: Option<(Arc<Gauge>, Plugged)>,
    console: Plugged,
    wiring: Wiring,
    size: Mib,
    figures: Figures,
    kvm: Kvm,
    /// The last to go: guest memory must stay mapped while KVM knows of it.
    vm: Arc<VmFd>,
}

/// What the start took.
struct Figures {
    cpu_us: u64,
    wall_us: u64,
}

/// Starts the machine that `spec` describes, with what concierge handed over; `news` is written when the machine
/// has something to say.
///
/// # Errors
/// The first thing that is missing or wrong. Nothing is left behind then.
pub(crate) fn start(
    spec: &VmSpec,
    news: EventFd,
    began: Instant,
) -> Result<(Machine, UnixStream), StartError> {
    // What the host gives.
    let mut handed = Handed::take(spec)?;
    let kvm = kvm::open(spec.vcpus)?;
    let backing = backing::reserve(spec.memory, spec.options.huge_pages)?;
    let cell = jail::enter(spec)?;
    let snapshot = handed.snapshot.as_ref();
    let snapshot = snapshot
        .map(|file| Snapshot::read(file, spec))
        .transpose()?;

    // Memory.
    let vm = Arc::new(kvm::create_machine(&kvm)?);
    let memory = Memory::map(&vm, backing, spec.memory)?;

    // vCPUs.
    let vcpus = cpu::create(&kvm, &vm, spec.vcpus)?;

    // What they do first: go on from a snapshot, or enter a kernel.
    if let (Some(snapshot), Some(file)) = (&snapshot, &handed.snapshot) {
        Snapshot::fill(file, &memory)?;
        kvm::set_clock(&vm, snapshot.clock)?;
        cpu::restore(&vcpus, &snapshot.processors)?;
    } else {
        let entry = load_kernel(spec, &mut handed, &memory)?;
        cpu::prepare(&vcpus, memory.guest(), entry)?;
    }

    // Devices.
    let switchboard = Arc::new(KvmSwitchboard::new(Arc::clone(&vm)));
    let lines = Arc::new(Lines::new(switchboard));
    let shadow = Shadow::map(&vm, SHADOW_SLOT, ECAM_START, ECAM_SIZE)?;
    let board = Arc::new(board(spec, shadow, &lines, &handed, snapshot.as_ref())?);
    let wiring = Wiring {
        memory,
        lines,
        notifier: Arc::clone(&vm) as Arc<_>,
    };
    let slots = Slots {
        board: &board,
        wiring: &wiring,
        snapshot: snapshot.as_ref(),
    };
    let console = Console::new(Arc::clone(&handed.output), handed.input.take());
    let console = slots.console(console)?;
    let devices = spec.devices.iter().zip(handed.sockets.drain(..));
    let devices = devices.map(|(device, socket)| slots.attach(device, socket));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    let balloon = spec
        .options
        .give_back
        .then(|| slots.balloon())
        .transpose()?;

    // Run.
    let yard = Yard::new(news);
    jail::lock(cell)?;
    let figures = Figures {
        cpu_us: sys::usage::cpu_us(),
        wall_us: micros(began),
    };
    let processors =
        Processors::start(vcpus, &board, &yard).map_err(host("start the processors"))?;
    let machine = Machine {
        processors,
        yard,
        board,
        devices,
        balloon,
        console,
        wiring,
        size: spec.memory,
        figures,
        kvm,
        vm,
    };
    Ok((machine, handed.control))
}

impl Machine {
    /// Plugs a device into the running machine.
    ///
    /// # Errors
    /// The daemon does not answer, or there is no slot.
    pub(crate) fn add(&mut self, device: &Device, socket: UnixStream) -> Result<(), StartError> {
        let slots = Slots {
            board: &self.board,
            wiring: &self.wiring,
            snapshot: None,
        };
        let attached = slots.attach(device, socket)?;
        self.devices.push(attached);
        Ok(())
    }

    /// Unplugs a device that the guest has let go of; returns whether it had.
    pub(crate) fn remove(&mut self, index: usize) -> bool {
        if lock(&self.devices[index].plugged.function).is_in_use() {
            return false;
        }
        let attached = self.devices.remove(index);
        lock(&self.board.bus).unplug(attached.plugged.slot);
        lock(&attached.plugged.function).unplug();
        true
    }

    /// Makes the guest stand still; what daemons do meanwhile waits for it.
    pub(crate) fn suspend(&self) {
        self.processors.pause();
        for vcpu in self.processors.paused() {
            // The guest must not take the pause for a processor that hangs; one without kvm-clock cannot be told.
            let _no_clock_yet = lock(vcpu).kvmclock_ctrl();
        }
    }

    /// Lets the guest go on, and its devices where a snapshot stopped them.
    pub(crate) fn resume(&self) {
        for plugged in self.plugged() {
            lock(&plugged.function).resume();
        }
        self.processors.resume();
    }

    /// Writes the whole machine, which stands still then, into an empty file.
    ///
    /// # Errors
    /// A device does not stop, KVM refuses, or there is no room.
    pub(crate) fn save(&self, file: &File) -> Result<(), StartError> {
        self.suspend();
        // Devices before processors: an interrupt that is on its way must still reach one.
        for plugged in self.plugged() {
            let paused = lock(&plugged.function).pause();
            paused.map_err(host("stop a device"))?;
        }
        let vcpus = (0..).zip(self.processors.paused());
        let processors = vcpus.map(|(number, vcpu)| {
            cpu::state::State::read(&self.kvm, number, &lock(vcpu)).map_err(StartError::from)
        });
        let mut snapshot = Snapshot {
            version: Snapshot::VERSION,
            bytes: 0,
            memory: self.size,
            clock: kvm::clock(&self.vm)?,
            processors: processors.collect::<Result<_, _>>()?,
            ioapic: lock(&self.board.ioapic).save(),
            power: self.board.power.save(),
            balloon: self.balloon.as_ref().map(|(gauge, _)| gauge.save()),
            functions: self.plugged().map(Plugged::save).collect(),
        };
        Ok(snapshot.write(file, &self.wiring.memory)?)
    }

    /// Returns everything on the bus.
    fn plugged(&self) -> impl Iterator<Item = &Plugged> {
        let devices = self.devices.iter().map(|attached| &attached.plugged);
        let balloon = self.balloon.as_ref().map(|(_, plugged)| plugged);
        std::iter::once(&self.console).chain(devices).chain(balloon)
    }

    /// Returns state and counters.
    pub(crate) fn info(&self) -> Info {
        let gauge = self.balloon.as_ref().map(|(gauge, _)| gauge);
        let ballooned = gauge.map(|gauge| gauge.holds()).unwrap_or_default();
        Info {
            suspended: self.yard.is_paused(),
            memory: Mib(self.size.0.saturating_sub(ballooned.0)),
            ballooned,
            given_back_bytes: gauge.map_or(0, |gauge| gauge.given_back_bytes()),
            exits: self.board.exits(),
            start_cpu_us: self.figures.cpu_us,
            start_wall_us: self.figures.wall_us,
            page_faults: sys::usage::page_faults(),
        }
    }

    /// Waits until nothing of the machine runs any more.
    pub(crate) fn finish(self) {
        self.processors.join();
        for device in &self.devices {
            lock(&device.plugged.function).unplug();
        }
    }
}

fn load_kernel(spec: &VmSpec, handed: &mut Handed, memory: &Memory) -> Result<u64, KernelError> {
    let command_line = kernel::command_line(&spec.kernel.cmdline);
    let sources = kernel::Sources {
        image: &mut handed.kernel,
        initramfs: handed.initramfs.as_mut(),
        command_line: &command_line,
        vcpus: spec.vcpus,
    };
    kernel::load(memory.guest(), &ram_regions(spec.memory), sources)
}

/// Makes what the processors reach without a slot, as a snapshot left it.
fn board(
    spec: &VmSpec,
    shadow: Shadow,
    lines: &Lines,
    handed: &Handed,
    snapshot: Option<&Snapshot>,
) -> Result<Board, StartError> {
    let mut ioapic = IoApic::new(lines).map_err(host("make the interrupt controller"))?;
    let interrupt = ioapic.pin(ACPI_EVENT_PIN).try_clone();
    let power = Power::new(interrupt.map_err(host("make the power button"))?);
    if let Some(snapshot) = snapshot {
        ioapic.restore(snapshot.ioapic.clone());
        power.restore(snapshot.power.clone());
    }
    let early = kernel::wants_early_output(&spec.kernel.cmdline);
    let early = early.then(|| Arc::clone(&handed.output));
    Ok(Board::new(Bus::new(Box::new(shadow)), ioapic, power, early))
}

/// Makes the descriptor that [`start`] wants.
///
/// # Errors
/// The host has no more descriptors.
pub(crate) fn news() -> Result<EventFd, StartError> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(host("wait for the machine"))
}

fn host(act: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Host { act, source }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
