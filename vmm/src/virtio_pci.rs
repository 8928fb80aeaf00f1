//! The virtio transport over PCI on the host side (virtio 1.3 §4.1), modern only, one BAR for everything.
//!
//! ```text
//! BAR 0   0x0000 common configuration     0x3000 MSI-X table
//!         0x1000 interrupt status         0x4000 MSI-X pending bits
//!         0x2000 device configuration     0x6000 one notification address a queue
//! ```
//! The data path never comes here: notifications go from KVM to whoever serves the queue, interrupts back.

pub(crate) mod configuration;
mod identity;
pub(crate) mod state;

use std::io;
use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::configuration::{Change, Common};
use crate::interrupt::{Line, Lines};
use crate::memory::Memory;
use crate::pci::bus::Function;
use crate::pci::config::ConfigSpace;
use crate::pci::msix::Msix;
use crate::virtio_device::{Activation, ReadyQueue, VirtioDevice};

const COMMON: u64 = 0x0000;
const STATUS: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const TABLE: u64 = 0x3000;
const PENDING: u64 = 0x4000;
const NOTIFY: u64 = 0x6000;
/// Each queue has its own notification address, so that one event descriptor serves one queue.
const NOTIFY_STRIDE: u64 = 4;

/// Bits of the interrupt status register (virtio 1.3 §4.1.4.5).
const STATUS_CONFIG_CHANGED: u8 = 2;

/// Joins a queue's notification address to its event descriptor: KVM, or nothing in tests.
pub(crate) trait Notifier: Send + Sync {
    /// Lets a write at guest address `at` count on `kick`.
    fn attach(&self, at: u64, kick: &EventFd) -> io::Result<()>;
    /// Ends that.
    fn detach(&self, at: u64, kick: &EventFd) -> io::Result<()>;
}

impl Notifier for VmFd {
    fn attach(&self, at: u64, kick: &EventFd) -> io::Result<()> {
        Ok(self.register_ioevent(kick, &IoEventAddress::Mmio(at), NoDatamatch)?)
    }

    fn detach(&self, at: u64, kick: &EventFd) -> io::Result<()> {
        Ok(self.unregister_ioevent(kick, &IoEventAddress::Mmio(at), NoDatamatch)?)
    }
}

/// What every function on the bus is made with.
#[derive(Clone)]
pub(crate) struct Wiring {
    /// The guest's memory.
    pub(crate) memory: Memory,
    /// Where interrupts come from.
    pub(crate) lines: Arc<Lines>,
    /// Where notifications go.
    pub(crate) notifier: Arc<dyn Notifier>,
}

/// One virtio device on the bus.
pub(crate) struct VirtioPci {
    config: ConfigSpace,
    msix: Msix,
    /// Where the MSI-X message control word is in configuration space.
    msix_control: usize,
    common: Common,
    status: u8,
    device: Box<dyn VirtioDevice>,
    kicks: Vec<EventFd>,
    /// The BAR address for which notifications are attached, while the device works.
    attached_at: Option<u64>,
    active: bool,
    /// Where each queue stands, while the device is stopped without the guest's knowledge.
    paused: Option<Vec<(u16, u16)>>,
    wiring: Wiring,
}

impl VirtioPci {
    /// Puts `device` behind a function whose registers start at `bar`.
    ///
    /// # Errors
    /// Interrupts or descriptors are used up.
    pub(crate) fn new(device: Box<dyn VirtioDevice>, bar: u64, wiring: Wiring) -> io::Result<Self> {
        let queues = device.queue_sizes();
        let kicks = queues
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC));
        let kicks = kicks.collect::<io::Result<Vec<_>>>()?;
        let lines = wiring.lines.make(queues.len() + 1)?;
        let (config, msix_control) = identity::config_space(device.kind(), queues.len(), bar);
        Ok(Self {
            config,
            msix: Msix::new(lines),
            msix_control,
            common: Common::new(device.features(), &queues),
            status: 0,
            device,
            kicks,
            attached_at: None,
            active: false,
            paused: None,
            wiring,
        })
    }

    /// Tells the guest that the device's configuration changed.
    pub(crate) fn config_changed(&mut self) {
        self.common.next_generation();
        self.status |= STATUS_CONFIG_CHANGED;
        if let Some(line) = self.msix.line(self.common.config_vector()) {
            raise(line);
        }
    }

    /// Returns whether the guest's driver has the device.
    pub(crate) fn is_in_use(&self) -> bool {
        self.common.has_driver()
    }

    /// Stops the device and gives its interrupts back.
    pub(crate) fn unplug(&mut self) {
        self.stop();
        self.wiring.lines.free(self.msix.take_lines());
    }

    /// Starts the device with what the guest set up.
    fn start(&mut self) {
        if self.active {
            return;
        }
        self.activate_or_give_up(&[]);
        self.attach_notifications();
    }

    /// Lets the device work, or tells the guest that it cannot.
    fn activate_or_give_up(&mut self, positions: &[(u16, u16)]) {
        if let Err(error) = self.activate(positions) {
            tracing::warn!(kind = self.device.kind(), %error, "a virtio device cannot start");
            self.common.needs_reset();
            self.config_changed();
        }
    }

    /// Gives the device its queues, which go on at `positions` and else begin.
    fn activate(&mut self, positions: &[(u16, u16)]) -> io::Result<()> {
        let queues = self.ready_queues(positions)?;
        self.active = true;
        self.device.activate(Activation {
            features: self.common.features(),
            memory: self.wiring.memory.clone(),
            queues,
        })
    }

    /// Stops the device.
    fn stop(&mut self) {
        self.detach_notifications();
        self.paused = None;
        if std::mem::take(&mut self.active) {
            self.device.reset();
        }
    }

    fn ready_queues(&self, positions: &[(u16, u16)]) -> io::Result<Vec<ReadyQueue>> {
        let mut ready = Vec::new();
        for (index, queue) in (0..)
            .zip(self.common.queues())
            .filter(|(_, queue)| queue.enabled)
        {
            if !queue.is_in(self.wiring.memory.guest()) {
                let message = format!("queue {index} is not in guest memory");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            let call = match self.msix.line(queue.vector) {
                Some(line) => line.event().try_clone()?,
                // A queue without a vector is one the guest polls; nobody listens to its interrupts.
                None => EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            };
            let position = positions.iter().find(|(queue, _)| *queue == index);
            ready.push(ReadyQueue {
                index,
                size: queue.size,
                descriptors: queue.descriptors,
                available: queue.available,
                used: queue.used,
                next: position.map_or(0, |(_, next)| *next),
                kick: self.kicks[usize::from(index)].try_clone()?,
                call,
            });
        }
        Ok(ready)
    }

    fn attach_notifications(&mut self) {
        let Some(bar) = self.config.bar().filter(|_| self.active) else {
            return;
        };
        for (kick, at) in self.kicks.iter().zip(notify_addresses(bar)) {
            if let Err(error) = self.wiring.notifier.attach(at, kick) {
                tracing::error!(%error, "cannot attach a notification");
            }
        }
        self.attached_at = Some(bar);
    }

    fn detach_notifications(&mut self) {
        let Some(bar) = self.attached_at.take() else {
            return;
        };
        for (kick, at) in self.kicks.iter().zip(notify_addresses(bar)) {
            if let Err(error) = self.wiring.notifier.detach(at, kick) {
                tracing::error!(%error, "cannot detach a notification");
            }
        }
    }

    fn follow(&mut self, change: Change) {
        match change {
            Change::Nothing => {}
            Change::Start => self.start(),
            Change::Reset => {
                self.stop();
                self.status = 0;
            }
        }
    }
}

impl Function for VirtioPci {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let before = self.config.bar();
        self.config.write(offset, data);
        let control = &self.config.bytes()[self.msix_control..self.msix_control + 2];
        let control = u16::from_le_bytes([control[0], control[1]]);
        let touched = offset < self.msix_control + 2 && self.msix_control < offset + data.len();
        if touched {
            self.msix.set_control(control);
        }
        if self.config.bar() != before {
            self.detach_notifications();
            self.attach_notifications();
        }
    }

    fn read_bar(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match offset {
            COMMON..STATUS => self.common.read(offset - COMMON, data),
            STATUS => {
                data[0] = self.status;
                self.status = 0;
            }
            DEVICE..TABLE => self.device.read_config(offset - DEVICE, data),
            TABLE..PENDING => self.msix.read_table(offset - TABLE, data),
            PENDING..NOTIFY => self.msix.read_pending(offset - PENDING, data),
            _ => {}
        }
    }

    fn write_bar(&mut self, offset: u64, data: &[u8]) {
        match offset {
            COMMON..STATUS => {
                let change = self.common.write(offset - COMMON, data);
                self.follow(change);
            }
            DEVICE..TABLE => self.device.write_config(offset - DEVICE, data),
            TABLE..PENDING => self.msix.write_table(offset - TABLE, data),
            NOTIFY.. => {
                // KVM takes notifications before they come here, except before the device has started.
                let queue = usize::try_from((offset - NOTIFY) / NOTIFY_STRIDE).ok();
                if let Some(kick) = queue.and_then(|queue| self.kicks.get(queue)) {
                    let _full_counter_is_a_kick_too = kick.write(1);
                }
            }
            _ => {}
        }
    }
}

/// Returns the notification address of each queue in turn.
fn notify_addresses(bar: u64) -> impl Iterator<Item = u64> {
    (0..).map(move |queue: u64| bar + NOTIFY + queue * NOTIFY_STRIDE)
}

fn raise(line: &Line) {
    if let Err(error) = line.event().write(1) {
        tracing::error!(%error, "cannot raise an interrupt");
    }
}

#[cfg(test)]
mod tests;
