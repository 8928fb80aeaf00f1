//! The engine's two doors to strangers without a machine behind them, for the fuzz targets (fuzz/): the guest's at the PCI
//! bus, and a daemon's at the front end. Compiled only with `cfg(fuzzing)`.

mod device;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use spec::units::Mib;
use spec::vm::Device;
use vm_memory::{Bytes as _, MmapRegion, VolatileMemory as _, VolatileSlice};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::device::{Addresses, Checked};
use crate::front_end::FrontEnd;
use crate::interrupt::recorder::Recorder;
use crate::memory::Memory;
use crate::memory::layout::{ECAM_SIZE, ECAM_START};
use crate::pci::bus::{Bus, Function as _, View, bar_address, config_offset, lock};
use crate::virtio_device::{Activation, F_EVENT_IDX, F_VERSION_1, ReadyQueue, VirtioDevice as _};
use crate::virtio_pci::state::State;
use crate::virtio_pci::{VirtioPci, Wiring};

/// Guest memory: enough for rings, and for addresses that miss it.
const MEMORY: Mib = Mib(64);

/// The slot of the one device.
const SLOT: usize = 1;

/// Where the device's registers are when the machine starts.
pub const BAR: u64 = 0xc000_8000;

/// Where the device's configuration space is.
pub const CONFIG: u64 = ECAM_START + ((SLOT as u64) << 15);

/// What outlives one execution, because mapping it takes longer than using it.
#[derive(Debug)]
pub struct Ground {
    memory: Memory,
    view: Arc<MmapRegion>,
}

impl Default for Ground {
    fn default() -> Self {
        assert_eq!(bar_address(SLOT), BAR);
        let bytes = usize::try_from(ECAM_SIZE).expect("one mebibyte");
        Self {
            memory: Memory::for_tests(MEMORY),
            view: Arc::new(MmapRegion::new(bytes).expect("a mapping")),
        }
    }
}

struct Plain(Arc<MmapRegion>);

impl View for Plain {
    fn bytes(&self) -> VolatileSlice<'_> {
        self.0.as_volatile_slice()
    }
}

/// A bus with one virtio device of two queues.
pub struct Pci {
    bus: Bus,
    view: Arc<MmapRegion>,
    function: Arc<Mutex<VirtioPci>>,
    recorder: Arc<Recorder>,
    addresses: Arc<Addresses>,
}

impl Pci {
    /// Plugs the device in.
    pub fn new(ground: &Ground) -> Self {
        Self::with(ground, None)
    }

    /// Plugs the device in, which goes on from `state` if there is one and it takes it.
    fn with(ground: &Ground, state: Option<State>) -> Self {
        let (recorder, lines) = Recorder::with_lines();
        let addresses = Arc::new(Addresses::default());
        let wiring = Wiring {
            memory: ground.memory.clone(),
            lines,
            notifier: Arc::clone(&addresses) as Arc<_>,
        };
        let function = VirtioPci::new(Box::new(Checked::default()), BAR, wiring);
        let mut function = function.expect("a device");
        if let Some(state) = state {
            // Its queues may be where no memory is.
            let _either_is_fine = function.restore(state);
        }
        let function = Arc::new(Mutex::new(function));
        let mut bus = Bus::new(Box::new(Plain(Arc::clone(&ground.view))));
        bus.plug(SLOT, Arc::clone(&function) as Arc<_>);
        Self {
            bus,
            view: Arc::clone(&ground.view),
            function,
            recorder,
            addresses,
        }
    }

    /// Takes the guest's write to any address that is not memory.
    pub fn write(&mut self, address: u64, data: &[u8]) {
        if let Some(offset) = config_offset(address) {
            self.bus.write_config(offset, data);
        } else if let Some((function, offset)) = self.bus.find(address) {
            lock(&function).write_bar(offset, data);
        }
    }

    /// Answers the guest's read.
    pub fn read(&mut self, address: u64, data: &mut [u8]) {
        if let Some((function, offset)) = self.bus.find(address) {
            lock(&function).read_bar(offset, data);
        }
    }

    /// Tells the guest of new configuration.
    pub fn config_changed(&mut self) {
        lock(&self.function).config_changed();
    }

    /// Stops the device and lets it go on.
    pub fn pause_and_resume(&mut self) {
        let mut function = lock(&self.function);
        function.pause().expect("this device always stops");
        function.resume();
    }

    /// Saves the device and restores another one with that.
    pub fn save_and_restore(&mut self, ground: &Ground) {
        let state = {
            let mut function = lock(&self.function);
            function.pause().expect("this device always stops");
            function.save()
        };
        self.unplug();
        *self = Self::with(ground, Some(state));
    }

    /// Unplugs the device: what it had attached anywhere is gone.
    pub fn unplug(&mut self) {
        let mut seen = [0; 4096];
        let at = usize::try_from(CONFIG - ECAM_START).expect("a small number");
        let read = self.view.as_volatile_slice().read_slice(&mut seen, at);
        read.expect("the view has it");
        let mut function = lock(&self.function);
        assert_eq!(&seen, function.config().bytes(), "what the guest sees");
        assert_eq!(seen[..4], [0xf4, 0x1a, 0x44, 0x10], "who it is");
        function.unplug();
        drop(function);
        self.bus.unplug(SLOT);
        assert!(lock(&self.recorder.connected).is_empty());
        assert!(lock(&self.addresses.0).is_empty());
    }
}

/// The engine's end of a connection to a daemon.
pub struct Front {
    front: Arc<Mutex<FrontEnd>>,
    memory: Memory,
}

impl Front {
    /// Greets the daemon; returns nothing if it is none.
    pub fn attach(ground: &Ground, device: &Device, socket: UnixStream) -> Option<Self> {
        let memory = ground.memory.clone();
        let front = FrontEnd::attach(device, socket, memory.clone()).ok()?;
        let front = Arc::new(Mutex::new(front));
        Some(Self { front, memory })
    }

    /// Lets the daemon work on two queues, and asks it for what a machine may ask.
    ///
    /// # Errors
    /// The daemon is not what it should be.
    pub fn work(&mut self, write: &[u8]) -> io::Result<()> {
        let queue = |index: u16| {
            let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
            let start = u64::from(index) << 16;
            io::Result::Ok(ReadyQueue {
                index,
                size: 8,
                descriptors: start,
                available: start + 0x1000,
                used: start + 0x2000,
                next: 0,
                kick: event()?,
                call: event()?,
            })
        };
        self.front.activate(Activation {
            features: F_VERSION_1 | F_EVENT_IDX,
            memory: self.memory.clone(),
            queues: vec![queue(0)?, queue(1)?],
        })?;
        self.front.write_config(0, write);
        let mut config = [0; 64];
        self.front.read_config(0, &mut config);
        Ok(())
    }

    /// Answers a message of the daemon's on its own channel.
    ///
    /// # Errors
    /// It is none.
    pub fn answer(&mut self) -> io::Result<()> {
        let mut front = lock(&self.front);
        let changed = front.session().answer_request();
        if changed.map_err(io::Error::other)? {
            front.refresh_config().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Goes on with another daemon.
    ///
    /// # Errors
    /// It cannot replace the first.
    pub fn reattach(&mut self, socket: UnixStream) -> io::Result<()> {
        lock(&self.front).reattach(socket).map_err(io::Error::other)
    }

    /// Stops the daemon for a while, then for good.
    ///
    /// # Errors
    /// It does not say where it stands.
    pub fn end(&mut self) -> io::Result<()> {
        let paused = self.front.pause();
        self.front.reset();
        paused.map(drop)
    }
}
