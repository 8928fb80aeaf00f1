//! What is plugged into the machine's bus on the host: the console and the balloon, which are its own, and a device for
//! each daemon.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use spec::vm::Device;

use super::StartError;
use crate::balloon::{Balloon, Gauge};
use crate::board::Board;
use crate::console::Console;
use crate::front_end::FrontEnd;
use crate::pci::bus::{bar_address, lock};
use crate::snapshot::{self, Snapshot, SnapshotError};
use crate::virtio_device::VirtioDevice;
use crate::virtio_pci::{VirtioPci, Wiring};

/// The names of the machine's own functions; no device can be called so.
const CONSOLE: &str = "(console)";
const BALLOON: &str = "(balloon)";

/// A function on the bus.
pub(crate) struct Plugged {
    /// The device's name.
    pub(crate) name: String,
    /// Where it is plugged in.
    pub(crate) slot: usize,
    /// The guest's half.
    pub(crate) function: Arc<Mutex<VirtioPci>>,
}

impl Plugged {
    /// Returns the paused function as a snapshot has it.
    pub(crate) fn save(&self) -> snapshot::Plugged {
        snapshot::Plugged {
            name: self.name.clone(),
            slot: self.slot,
            function: lock(&self.function).save(),
        }
    }
}

/// A device with its daemon.
pub(crate) struct Attached {
    /// The guest's half, and its name.
    pub(crate) plugged: Plugged,
    /// The daemon's half.
    pub(crate) front: Arc<Mutex<FrontEnd>>,
}

/// Plugs things in.
pub(crate) struct Slots<'a> {
    /// Whose bus it is.
    pub(crate) board: &'a Board,
    /// What every function needs.
    pub(crate) wiring: &'a Wiring,
    /// What the functions go on from; without it, they begin.
    pub(crate) snapshot: Option<&'a Snapshot>,
}

impl Slots<'_> {
    /// Plugs the console in.
    pub(crate) fn console(&self, console: Console) -> Result<Plugged, StartError> {
        self.plug(CONSOLE, Box::new(console))
    }

    /// Plugs in the device that the daemon behind `socket` serves.
    pub(crate) fn attach(
        &self,
        device: &Device,
        socket: UnixStream,
    ) -> Result<Attached, StartError> {
        let front = FrontEnd::attach(device, socket, self.wiring.memory.clone())?;
        let front = Arc::new(Mutex::new(front));
        let plugged = self.plug(&device.name, Box::new(Arc::clone(&front)))?;
        if self.snapshot.is_some() {
            lock(&front).reset_streams();
        }
        Ok(Attached { plugged, front })
    }

    /// Plugs the balloon in.
    pub(crate) fn balloon(&self) -> Result<(Arc<Gauge>, Plugged), StartError> {
        let gauge = Arc::new(Gauge::default());
        if let Some(state) = self.snapshot.and_then(|snapshot| snapshot.balloon) {
            gauge.restore(state);
        }
        let plugged = self.plug(BALLOON, Box::new(Balloon::new(Arc::clone(&gauge))))?;
        Ok((gauge, plugged))
    }

    /// Plugs `device` into the slot where it was, or the next.
    fn plug(&self, name: &str, device: Box<dyn VirtioDevice>) -> Result<Plugged, StartError> {
        let mut bus = lock(&self.board.bus);
        let before = self
            .snapshot
            .map(|snapshot| snapshot.function(name))
            .transpose()?;
        let slot = match before {
            Some(before) => Some(before.slot).filter(|slot| bus.is_free(*slot)),
            None => bus.free_slot(),
        };
        let slot = slot.ok_or(StartError::NoSlot)?;
        let function = VirtioPci::new(device, bar_address(slot), self.wiring.clone());
        let mut function = function.map_err(super::host("make a device"))?;
        if let Some(before) = before
            && let Some(problem) = function.restore(before.function.clone())
        {
            let device = name.to_owned();
            return Err(SnapshotError::Device { device, problem }.into());
        }
        let function = Arc::new(Mutex::new(function));
        bus.plug(slot, Arc::clone(&function) as Arc<_>);
        Ok(Plugged {
            name: name.to_owned(),
            slot,
            function,
        })
    }
}
