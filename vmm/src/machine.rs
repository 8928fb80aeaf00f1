//! One virtual machine on the host, from its specification to its end.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use kvm_ioctls::VmFd;
use spec::control::Info;
use spec::end::EngineEnd;
use spec::units::Mib;
use spec::vm::{Device, VmSpec};
use sys::jail::JailError;
use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::balloon::{Balloon, Gauge};
use crate::board::Board;
use crate::console::Console;
use crate::cpu::run::{Processors, Yard};
use crate::cpu::{self, CpuError};
use crate::front_end::{AttachError, FrontEnd};
use crate::handed::{Handed, HandedError};
use crate::interrupt::{KvmSwitchboard, Lines};
use crate::ioapic::{ACPI_EVENT_PIN, IoApic};
use crate::jail;
use crate::kernel::{self, KernelError};
use crate::kvm::{self, KvmError};
use crate::memory::layout::{ECAM_SIZE, ECAM_START, ram_regions};
use crate::memory::{Memory, MemoryError, Shadow, backing};
use crate::pci::bus::{Bus, bar_address, lock};
use crate::power::Power;
use crate::virtio_device::VirtioDevice;
use crate::virtio_pci::{VirtioPci, Wiring};

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
    #[error("cannot enter the jail")]
    Jail(#[from] JailError),
    #[error("cannot {act}")]
    Host {
        act: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot {act}: the bus is full")]
    BusFull { act: &'static str },
}

impl StartError {
    /// Returns the exit code's name for this error.
    pub(crate) fn end(&self) -> EngineEnd {
        match self {
            Self::Handed(_) => EngineEnd::Descriptor,
            Self::Kvm(_) | Self::Cpu(_) => EngineEnd::Kvm,
            Self::Memory(_) => EngineEnd::Memory,
            Self::Attach(_) => EngineEnd::Device,
            Self::Kernel(_) => EngineEnd::Kernel,
            Self::Jail(_) => EngineEnd::Jail,
            Self::Host { .. } | Self::BusFull { .. } => EngineEnd::Internal,
        }
    }
}

/// A function that the machine itself may have to talk to.
pub(crate) type SharedPci = Arc<Mutex<VirtioPci>>;

/// A device with its daemon and its place on the bus.
pub(crate) struct Attached {
    /// The device's name.
    pub(crate) name: String,
    /// The daemon's half.
    pub(crate) front: Arc<Mutex<FrontEnd>>,
    /// The guest's half.
    pub(crate) function: SharedPci,
    /// Where it is plugged in.
    pub(crate) slot: usize,
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
    pub(crate) balloon: Option<(Arc<Gauge>, SharedPci)>,
    wiring: Wiring,
    size: Mib,
    start_cpu_us: u64,
    start_wall_us: u64,
    /// The last to go: guest memory must stay mapped while KVM knows of it.
    _vm: Arc<VmFd>,
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

    // Memory.
    let vm = Arc::new(kvm::create_machine(&kvm)?);
    let memory = Memory::map(&vm, backing, spec.memory)?;

    // vCPUs.
    let vcpus = cpu::create(&kvm, &vm, spec.vcpus)?;

    // Devices.
    let switchboard = Arc::new(KvmSwitchboard::new(Arc::clone(&vm)));
    let lines = Arc::new(Lines::new(switchboard));
    let notifier = Arc::clone(&vm) as Arc<_>;
    let wiring = Wiring {
        memory: memory.clone(),
        lines: Arc::clone(&lines),
        notifier,
    };
    let board = Arc::new(board(spec, &vm, &lines, &handed)?);
    let console = Console::new(Arc::clone(&handed.output), handed.input.take());
    plug(&board, Box::new(console), &wiring)?;
    let devices = spec.devices.iter().zip(handed.sockets.drain(..));
    let devices = devices
        .map(|(device, socket)| attach(&board, device, socket, &wiring))
        .collect::<Result<Vec<_>, _>>()?;
    let balloon = if spec.options.give_back {
        Some(balloon(&board, &wiring)?)
    } else {
        None
    };

    // Kernel.
    let command_line = kernel::command_line(&spec.kernel.cmdline);
    let sources = kernel::Sources {
        image: &mut handed.kernel,
        initramfs: handed.initramfs.as_mut(),
        command_line: &command_line,
        vcpus: spec.vcpus,
    };
    let entry = kernel::load(memory.guest(), &ram_regions(spec.memory), sources)?;
    cpu::prepare(&vcpus, memory.guest(), entry)?;

    // Run.
    let yard = Yard::new(news);
    jail::lock(cell)?;
    let (start_cpu_us, start_wall_us) = (sys::usage::cpu_us(), micros(began));
    let processors =
        Processors::start(vcpus, &board, &yard).map_err(host("start the processors"))?;
    let machine = Machine {
        processors,
        yard,
        board,
        devices,
        balloon,
        wiring,
        size: spec.memory,
        start_cpu_us,
        start_wall_us,
        _vm: vm,
    };
    Ok((machine, handed.control))
}

impl Machine {
    /// Plugs a device into the running machine.
    ///
    /// # Errors
    /// The daemon does not answer, or there is no slot.
    pub(crate) fn add(&mut self, device: &Device, socket: UnixStream) -> Result<(), StartError> {
        let attached = attach(&self.board, device, socket, &self.wiring)?;
        self.devices.push(attached);
        Ok(())
    }

    /// Unplugs a device that the guest has let go of; returns whether it had.
    pub(crate) fn remove(&mut self, index: usize) -> bool {
        if lock(&self.devices[index].function).is_in_use() {
            return false;
        }
        let attached = self.devices.remove(index);
        lock(&self.board.bus).unplug(attached.slot);
        lock(&attached.function).unplug();
        true
    }

    /// Returns state and counters.
    pub(crate) fn info(&self) -> Info {
        let ballooned = self
            .balloon
            .as_ref()
            .map(|(gauge, _)| gauge.holds())
            .unwrap_or_default();
        let given_back = self
            .balloon
            .as_ref()
            .map_or(0, |(gauge, _)| gauge.given_back_bytes());
        Info {
            suspended: self.yard.is_paused(),
            memory: Mib(self.size.0.saturating_sub(ballooned.0)),
            ballooned,
            given_back_bytes: given_back,
            exits: self.board.exits(),
            start_cpu_us: self.start_cpu_us,
            start_wall_us: self.start_wall_us,
            page_faults: sys::usage::page_faults(),
        }
    }

    /// Waits until nothing of the machine runs any more.
    pub(crate) fn finish(self) {
        self.processors.join();
        for device in &self.devices {
            lock(&device.function).unplug();
        }
    }
}

fn board(spec: &VmSpec, vm: &VmFd, lines: &Lines, handed: &Handed) -> Result<Board, StartError> {
    let size = usize::try_from(ECAM_SIZE).expect("addresses have 64 bits");
    let shadow = Shadow::map(vm, SHADOW_SLOT, ECAM_START, size)?;
    let ioapic = IoApic::new(lines).map_err(host("make the interrupt controller"))?;
    let interrupt = ioapic.pin(ACPI_EVENT_PIN).try_clone();
    let power = Power::new(interrupt.map_err(host("make the power button"))?);
    let early = kernel::wants_early_output(&spec.kernel.cmdline);
    let early = early.then(|| Arc::clone(&handed.output));
    Ok(Board::new(Bus::new(Box::new(shadow)), ioapic, power, early))
}

/// Plugs `device` into the next slot.
fn plug(
    board: &Board,
    device: Box<dyn VirtioDevice>,
    wiring: &Wiring,
) -> Result<(usize, SharedPci), StartError> {
    let mut bus = lock(&board.bus);
    let slot = bus.free_slot().ok_or(StartError::BusFull {
        act: "plug a device in",
    })?;
    let function = VirtioPci::new(device, bar_address(slot), wiring.clone());
    let function = Arc::new(Mutex::new(function.map_err(host("make a device"))?));
    bus.plug(slot, Arc::clone(&function) as Arc<_>);
    Ok((slot, function))
}

fn attach(
    board: &Board,
    device: &Device,
    socket: UnixStream,
    wiring: &Wiring,
) -> Result<Attached, StartError> {
    let front = FrontEnd::attach(device, socket, wiring.memory.clone())?;
    let front = Arc::new(Mutex::new(front));
    let (slot, function) = plug(board, Box::new(Arc::clone(&front)), wiring)?;
    Ok(Attached {
        name: device.name.clone(),
        front,
        function,
        slot,
    })
}

fn balloon(board: &Board, wiring: &Wiring) -> Result<(Arc<Gauge>, SharedPci), StartError> {
    let gauge = Arc::new(Gauge::default());
    let (_, function) = plug(board, Box::new(Balloon::new(Arc::clone(&gauge))), wiring)?;
    Ok((gauge, function))
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
