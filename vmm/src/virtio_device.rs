//! What a virtio device is to the transport, on the host: served by a daemon or by a thread of this process.

use std::io;

use vmm_sys_util::eventfd::EventFd;

use crate::memory::Memory;

/// Feature bits every device has through its transport (virtio 1.3 §6).
pub(crate) const F_INDIRECT: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`.
pub(crate) const F_EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`.
pub(crate) const F_VERSION_1: u64 = 1 << 32;

/// One queue as the guest set it up; its rings lie in guest memory.
pub(crate) struct ReadyQueue {
    /// Which queue of the device.
    pub(crate) index: u16,
    /// Descriptors.
    pub(crate) size: u16,
    /// Guest physical addresses.
    pub(crate) descriptors: u64,
    /// The ring the guest writes.
    pub(crate) available: u64,
    /// The ring the device writes.
    pub(crate) used: u64,
    /// The next entry of the available ring the device takes; not zero for a device that goes on.
    pub(crate) next: u16,
    /// Counts when the guest has put something in the queue.
    pub(crate) kick: EventFd,
    /// Interrupts the guest when written.
    pub(crate) call: EventFd,
}

impl ReadyQueue {
    /// Returns the same queue with descriptors of its own.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let (kick, call) = (self.kick.try_clone()?, self.call.try_clone()?);
        Ok(Self {
            kick,
            call,
            ..*self
        })
    }
}

/// Everything a device needs to work.
pub(crate) struct Activation {
    /// What device and guest agreed on.
    pub(crate) features: u64,
    /// The guest's memory.
    pub(crate) memory: Memory,
    /// The queues the guest enabled.
    pub(crate) queues: Vec<ReadyQueue>,
}

/// A virtio device behind the transport.
pub(crate) trait VirtioDevice: Send {
    /// Returns the device type (virtio 1.3 §5).
    fn kind(&self) -> u16;
    /// Returns the largest size of each queue.
    fn queue_sizes(&self) -> Vec<u16>;
    /// Returns the feature bits the device offers.
    fn features(&self) -> u64;
    /// Answers a read of the device's configuration; what does not exist is zero.
    fn read_config(&mut self, offset: u64, data: &mut [u8]);
    /// Takes a write to the device's configuration.
    fn write_config(&mut self, offset: u64, data: &[u8]);
    /// Starts work.
    ///
    /// # Errors
    /// The device cannot work and needs a reset.
    fn activate(&mut self, activation: Activation) -> io::Result<()>;
    /// Stops work until it is started again with the same queues; returns the next entry that each queue takes, by the
    /// queue's number, without those that the guest did not enable.
    ///
    /// # Errors
    /// The device does not say where it stands.
    fn pause(&mut self) -> io::Result<Vec<(u16, u16)>>;
    /// Stops work and forgets what the guest said.
    fn reset(&mut self);
}

#[cfg(test)]
mod tests;
