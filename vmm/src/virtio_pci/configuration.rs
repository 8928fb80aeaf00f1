//! The common configuration structure (virtio 1.3 §4.1.4.3) on the host side: what the guest writes while it
//! sets a device up, kept until the device starts.

use serde::{Deserialize, Serialize};
use vm_memory::{GuestAddress, GuestMemoryBackend as _};

use crate::memory::GuestMemory;
use crate::virtio_device::F_VERSION_1;

/// What a vector register holds when there is no vector.
pub(crate) const NO_VECTOR: u16 = 0xffff;

/// Device status bits (virtio 1.3 §2.1).
const DRIVER: u8 = 2;
const FEATURES_OK: u8 = 8;
const DRIVER_OK: u8 = 4;
const NEEDS_RESET: u8 = 64;

/// What the guest's write asks of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    Nothing,
    /// The driver is ready.
    Start,
    /// The driver wants the device as it was at power-on.
    Reset,
}

/// One queue as the guest describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Queue {
    pub(crate) size: u16,
    pub(crate) max_size: u16,
    pub(crate) vector: u16,
    pub(crate) enabled: bool,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
}

impl Queue {
    fn new(max_size: u16) -> Self {
        Self {
            size: max_size,
            max_size,
            vector: NO_VECTOR,
            ..Self::default()
        }
    }

    /// Returns whether the three rings are aligned (virtio 1.3 §2.7) and lie in memory as a whole.
    pub(crate) fn is_in(&self, memory: &GuestMemory) -> bool {
        let size = usize::from(self.size);
        let rings = [
            (self.descriptors, 16, 16 * size),
            (self.available, 2, 6 + 2 * size),
            (self.used, 4, 6 + 8 * size),
        ];
        rings.into_iter().all(|(start, alignment, length)| {
            let end = GuestAddress(start).0.checked_add(length as u64 - 1);
            start % alignment == 0
                && end.is_some()
                && memory.check_range(GuestAddress(start), length)
        })
    }
}

/// The structure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Common {
    offered: u64,
    device_select: u32,
    driver_select: u32,
    accepted: u64,
    config_vector: u16,
    status: u8,
    generation: u8,
    selected: u16,
    queues: Vec<Queue>,
}

impl Common {
    /// Makes the structure of a device that offers `features`.
    pub(crate) fn new(features: u64, queue_sizes: &[u16]) -> Self {
        Self {
            offered: features | F_VERSION_1,
            device_select: 0,
            driver_select: 0,
            accepted: 0,
            config_vector: NO_VECTOR,
            status: 0,
            generation: 0,
            selected: 0,
            queues: queue_sizes.iter().map(|size| Queue::new(*size)).collect(),
        }
    }

    /// Returns whether the guest of `other` would find the same device here.
    pub(crate) fn could_be(&self, other: &Self) -> bool {
        let sizes = |common: &Self| -> Vec<u16> {
            common.queues.iter().map(|queue| queue.max_size).collect()
        };
        other.accepted & !self.offered == 0
            && sizes(self) == sizes(other)
            && other
                .queues
                .iter()
                .all(|queue| queue.size.is_power_of_two() && queue.size <= queue.max_size)
    }

    /// Returns what device and guest agreed on.
    pub(crate) fn features(&self) -> u64 {
        self.accepted
    }

    /// Returns the vector of configuration changes.
    pub(crate) fn config_vector(&self) -> u16 {
        self.config_vector
    }

    /// Returns the queues.
    pub(crate) fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// Returns whether a driver has the device; a guest that let go of it still acknowledges that it is there.
    pub(crate) fn has_driver(&self) -> bool {
        self.status & DRIVER != 0
    }

    /// Makes the guest read its copy of the configuration again.
    pub(crate) fn next_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Tells the guest that the device has given up.
    pub(crate) fn needs_reset(&mut self) {
        self.status |= NEEDS_RESET;
    }

    /// Answers a read.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        let queue = self.queues.get(usize::from(self.selected));
        let of_queue = |field: fn(&Queue) -> u64| queue.map_or(0, field);
        let value = match offset {
            0 => self.device_select.into(),
            4 => half(self.offered, self.device_select).into(),
            8 => self.driver_select.into(),
            12 => half(self.accepted, self.driver_select).into(),
            16 => self.config_vector.into(),
            18 => self.queues.len() as u64,
            20 => self.status.into(),
            21 => self.generation.into(),
            22 => self.selected.into(),
            24 => of_queue(|queue| queue.size.into()),
            26 => queue.map_or(NO_VECTOR, |queue| queue.vector).into(),
            28 => of_queue(|queue| queue.enabled.into()),
            // The stride makes each queue's number its notification offset.
            30 if queue.is_some() => self.selected.into(),
            32 => of_queue(|queue| queue.descriptors),
            36 => of_queue(|queue| queue.descriptors >> 32),
            40 => of_queue(|queue| queue.available),
            44 => of_queue(|queue| queue.available >> 32),
            48 => of_queue(|queue| queue.used),
            52 => of_queue(|queue| queue.used >> 32),
            _ => 0,
        };
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    /// Takes a write.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Change {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
        }
        let value = u64::from_le_bytes(bytes);
        let word = u32::try_from(value & 0xffff_ffff).expect("masked to 32 bits");
        let short = u16::try_from(value & 0xffff).expect("masked to 16 bits");
        match offset {
            0 => self.device_select = word,
            8 => self.driver_select = word,
            12 => self.accept(word),
            16 => self.config_vector = self.known_vector(short),
            20 => return self.set_status(bytes[0]),
            22 => self.selected = short,
            24..=52 => self.write_queue(offset, data.len(), value),
            _ => {}
        }
        Change::Nothing
    }

    fn accept(&mut self, word: u32) {
        if self.status & FEATURES_OK != 0 || self.driver_select > 1 {
            return;
        }
        let shift = self.driver_select * 32;
        let kept = self.accepted & !(0xffff_ffff << shift);
        self.accepted = kept | (u64::from(word) << shift);
    }

    fn set_status(&mut self, status: u8) -> Change {
        if status == 0 {
            let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max_size).collect();
            *self = Self {
                generation: self.generation,
                ..Self::new(self.offered, &sizes)
            };
            return Change::Reset;
        }
        // Only a reset takes bits away (virtio 1.3 §2.1.1), so what was agreed on stays while the device works.
        let mut new = (status | self.status) & !NEEDS_RESET;
        let agreed = self.accepted & !self.offered == 0 && self.accepted & F_VERSION_1 != 0;
        if new & FEATURES_OK != 0 && !agreed {
            new &= !FEATURES_OK;
        }
        let starts = new & DRIVER_OK != 0 && self.status & DRIVER_OK == 0;
        self.status = new | (self.status & NEEDS_RESET);
        if starts && self.status & FEATURES_OK != 0 {
            Change::Start
        } else {
            Change::Nothing
        }
    }

    /// A running queue does not change, so the rest is ignored then (virtio 1.3 §4.1.4.3.2).
    fn write_queue(&mut self, offset: u64, width: usize, value: u64) {
        let short = u16::try_from(value & 0xffff).expect("masked to 16 bits");
        let vector = self.known_vector(short);
        let Some(queue) = self.queues.get_mut(usize::from(self.selected)) else {
            return;
        };
        if self.status & DRIVER_OK != 0 {
            return;
        }
        match offset {
            24 if short.is_power_of_two() && short <= queue.max_size => queue.size = short,
            26 => queue.vector = vector,
            28 => queue.enabled = short == 1,
            32 | 36 => set_half(&mut queue.descriptors, offset == 36, width, value),
            40 | 44 => set_half(&mut queue.available, offset == 44, width, value),
            48 | 52 => set_half(&mut queue.used, offset == 52, width, value),
            _ => {}
        }
    }

    /// A vector that does not exist reads back as none, which is how the guest learns it.
    fn known_vector(&self, vector: u16) -> u16 {
        if usize::from(vector) <= self.queues.len() {
            vector
        } else {
            NO_VECTOR
        }
    }
}

fn half(value: u64, select: u32) -> u32 {
    let shifted = if select > 1 {
        0
    } else {
        (value >> (select * 32)) & 0xffff_ffff
    };
    u32::try_from(shifted).expect("masked to 32 bits")
}

fn set_half(field: &mut u64, high: bool, width: usize, value: u64) {
    let low = value & 0xffff_ffff;
    *field = match (high, width) {
        (false, 8) => value,
        (false, _) => (*field & !0xffff_ffff) | low,
        (true, _) => (*field & 0xffff_ffff) | (low << 32),
    };
}
