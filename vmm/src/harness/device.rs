//! A device that holds the transport to what it promises to devices.

use std::collections::BTreeSet;
use std::io;
use std::sync::Mutex;

use vm_memory::GuestAddress;
use vm_memory::GuestMemoryBackend as _;
use vmm_sys_util::eventfd::EventFd;

use crate::pci::bus::lock;
use crate::virtio_device::{Activation, F_EVENT_IDX, F_VERSION_1, VirtioDevice};
use crate::virtio_pci::Notifier;

/// Descriptors in each of the two queues.
const SIZE: u16 = 64;

/// What the device offers: the transport's, and one bit of its own.
const OFFERED: u64 = F_EVENT_IDX | 0b100;

/// Where notifications are attached now; each only once.
#[derive(Debug, Default)]
pub(super) struct Addresses(pub(super) Mutex<BTreeSet<u64>>);

impl Notifier for Addresses {
    fn attach(&self, at: u64, _kick: &EventFd) -> io::Result<()> {
        assert!(lock(&self.0).insert(at), "{at:#x} is attached twice");
        Ok(())
    }

    fn detach(&self, at: u64, _kick: &EventFd) -> io::Result<()> {
        assert!(lock(&self.0).remove(&at), "{at:#x} was not attached");
        Ok(())
    }
}

/// The device.
#[derive(Debug, Default)]
pub(super) struct Checked {
    active: bool,
}

impl VirtioDevice for Checked {
    fn kind(&self) -> u16 {
        4
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![SIZE; 2]
    }

    fn features(&self) -> u64 {
        OFFERED
    }

    fn read_config(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(7);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        assert!(!self.active, "started twice");
        self.active = true;
        assert_eq!(activation.features & !(OFFERED | F_VERSION_1), 0);
        let memory = activation.memory.guest();
        for queue in &activation.queues {
            assert!(queue.size.is_power_of_two() && queue.size <= SIZE && queue.index < 2);
            let size = usize::from(queue.size);
            for (start, length) in [
                (queue.descriptors, 16 * size),
                (queue.available, 6 + 2 * size),
                (queue.used, 6 + 8 * size),
            ] {
                assert!(memory.check_range(GuestAddress(start), length));
            }
        }
        Ok(())
    }

    fn pause(&mut self) -> io::Result<Vec<(u16, u16)>> {
        let was_active = std::mem::take(&mut self.active);
        Ok(if was_active {
            vec![(0, 7), (1, 9)]
        } else {
            Vec::new()
        })
    }

    fn reset(&mut self) {
        self.active = false;
    }
}
