//! The machine's one PCI bus on the host side: slots, and the configuration space the guest reads.
//!
//! The guest reads configuration space thousands of times while it looks for devices. It does so in a copy
//! that is mapped into it read-only, so only its writes come here; after each, the copy is made anew.
//! Slots without a device read as ones, functions that cannot exist as zero: both mean "nobody here".

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::{Bytes, VolatileMemory, VolatileSlice};

use super::config::{CONFIG_BYTES, ConfigSpace, Identity};
use crate::memory::Shadow;
use crate::memory::layout::{BAR_END, BAR_START, ECAM_SIZE, ECAM_START};

/// Slots on one bus (PCI 3.0 §3.2.2.3.4).
pub(crate) const SLOTS: usize = 32;
/// Bytes of configuration space of one slot: eight functions.
const SLOT_BYTES: usize = CONFIG_BYTES * 8;
/// Registers of every device lie in a window of this size.
pub(crate) const BAR_BYTES: u32 = 0x8000;

/// The host bridge: Intel's 82Q35, the one every guest knows what to do with, which is nothing.
const HOST_BRIDGE: Identity = Identity {
    vendor: 0x8086,
    device: 0x29c0,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    revision: 0,
    class: 0x06_00_00,
};

/// A function on the bus.
pub(crate) trait Function: Send {
    /// Returns its configuration space.
    fn config(&self) -> &ConfigSpace;
    /// Takes the guest's write to configuration space.
    fn write_config(&mut self, offset: usize, data: &[u8]);
    /// Answers a read at `offset` into BAR 0.
    fn read_bar(&mut self, offset: u64, data: &mut [u8]);
    /// Takes a write at `offset` into BAR 0.
    fn write_bar(&mut self, offset: u64, data: &[u8]);
}

/// A function as slot and owner share it.
pub(crate) type SharedFunction = Arc<Mutex<dyn Function>>;

/// What the guest's configuration reads see: the shadow, or plain memory in tests.
pub(crate) trait View: Send {
    /// Returns [`ECAM_SIZE`] bytes.
    fn bytes(&self) -> VolatileSlice<'_>;
}

impl View for Shadow {
    fn bytes(&self) -> VolatileSlice<'_> {
        self.bytes().as_volatile_slice()
    }
}

/// The bus.
pub(crate) struct Bus {
    slots: [Option<SharedFunction>; SLOTS],
    bridge: ConfigSpace,
    view: Box<dyn View>,
}

impl Bus {
    /// Makes a bus with nothing but the host bridge.
    pub(crate) fn new(view: Box<dyn View>) -> Self {
        let slots = [const { None }; SLOTS];
        let bus = Self {
            slots,
            bridge: ConfigSpace::new(HOST_BRIDGE),
            view,
        };
        bus.show(0, bus.bridge.bytes());
        (1..SLOTS).for_each(|slot| bus.show(slot, &[0xff; CONFIG_BYTES]));
        bus
    }

    /// Returns a free slot and the place for its BAR.
    pub(crate) fn free_slot(&self) -> Option<usize> {
        (1..SLOTS).find(|slot| self.is_free(*slot))
    }

    /// Returns whether there is a slot of this number with nothing in it.
    pub(crate) fn is_free(&self, slot: usize) -> bool {
        (1..SLOTS).contains(&slot) && self.slots[slot].is_none()
    }

    /// Plugs `function` into a free `slot`.
    pub(crate) fn plug(&mut self, slot: usize, function: SharedFunction) {
        self.show(slot, lock(&function).config().bytes());
        self.slots[slot] = Some(function);
    }

    /// Unplugs what is in `slot`.
    pub(crate) fn unplug(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.show(slot, &[0xff; CONFIG_BYTES]);
    }

    /// Takes the guest's write into configuration space at `offset`.
    pub(crate) fn write_config(&mut self, offset: u64, data: &[u8]) {
        let Some((slot, register)) = place(offset) else {
            return;
        };
        if slot == 0 {
            self.bridge.write(register, data);
            self.show(0, self.bridge.bytes());
        } else if let Some(function) = &self.slots[slot] {
            let mut function = lock(function);
            function.write_config(register, data);
            self.show(slot, function.config().bytes());
        }
    }

    /// Returns the function whose registers are at `address` and the offset into them.
    pub(crate) fn find(&self, address: u64) -> Option<(SharedFunction, u64)> {
        self.slots.iter().flatten().find_map(|function| {
            let start = lock(function).config().bar()?;
            let offset = address.checked_sub(start)?;
            (offset < u64::from(BAR_BYTES)).then(|| (Arc::clone(function), offset))
        })
    }

    /// Makes the guest see `bytes` as the configuration space of the first function in `slot`.
    fn show(&self, slot: usize, bytes: &[u8; CONFIG_BYTES]) {
        let written = self.view.bytes().write_slice(bytes, slot * SLOT_BYTES);
        written.expect("the view has room for every slot");
    }
}

/// Returns where the BAR of the device in `slot` is when the machine starts.
pub(crate) fn bar_address(slot: usize) -> u64 {
    let address = BAR_START + slot as u64 * u64::from(BAR_BYTES);
    assert!(
        address + u64::from(BAR_BYTES) <= BAR_END,
        "32 slots fit in the hole"
    );
    address
}

/// Returns whether `address` is in configuration space, and where.
pub(crate) fn config_offset(address: u64) -> Option<u64> {
    address
        .checked_sub(ECAM_START)
        .filter(|offset| *offset < ECAM_SIZE)
}

/// Locks a function; a panic elsewhere in the process has already ended it.
pub(crate) fn lock<T: ?Sized>(function: &Mutex<T>) -> MutexGuard<'_, T> {
    function.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Splits an offset into configuration space into slot and register; only first functions exist.
fn place(offset: u64) -> Option<(usize, usize)> {
    let offset = usize::try_from(offset).ok()?;
    let (slot, register) = (offset / SLOT_BYTES, offset % SLOT_BYTES);
    (slot < SLOTS && register < CONFIG_BYTES).then_some((slot, register))
}

#[cfg(test)]
mod tests {
    use vm_memory::MmapRegion;

    use super::*;

    struct Plain(Arc<MmapRegion>);

    impl View for Plain {
        fn bytes(&self) -> VolatileSlice<'_> {
            self.0.as_volatile_slice()
        }
    }

    struct Scratch {
        config: ConfigSpace,
        written: Vec<u8>,
    }

    impl Function for Scratch {
        fn config(&self) -> &ConfigSpace {
            &self.config
        }
        fn write_config(&mut self, offset: usize, data: &[u8]) {
            self.config.write(offset, data);
        }
        fn read_bar(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(u8::try_from(offset).unwrap());
        }
        fn write_bar(&mut self, _offset: u64, data: &[u8]) {
            self.written.extend_from_slice(data);
        }
    }

    fn bus() -> (Arc<MmapRegion>, Bus) {
        let memory = Arc::new(MmapRegion::new(usize::try_from(ECAM_SIZE).unwrap()).unwrap());
        let bus = Bus::new(Box::new(Plain(Arc::clone(&memory))));
        (memory, bus)
    }

    fn plugged() -> (Arc<MmapRegion>, Bus) {
        let (memory, mut bus) = bus();
        let mut config = ConfigSpace::new(HOST_BRIDGE);
        config.set_bar(bar_address(1), BAR_BYTES);
        bus.plug(
            1,
            Arc::new(Mutex::new(Scratch {
                config,
                written: Vec::new(),
            })),
        );
        (memory, bus)
    }

    fn seen(memory: &MmapRegion, slot: usize, register: usize) -> u32 {
        memory
            .as_volatile_slice()
            .read_obj(slot * SLOT_BYTES + register)
            .unwrap()
    }

    #[test]
    fn an_empty_slot_reads_as_ones() {
        let (memory, _bus) = bus();
        assert_eq!(seen(&memory, 0, 0), 0x29c0_8086);
        assert_eq!(seen(&memory, 1, 0), u32::MAX);
        assert_eq!(seen(&memory, 31, 0), u32::MAX);
    }

    #[test]
    fn what_the_guest_writes_it_reads() {
        let (memory, mut bus) = plugged();
        assert_eq!(seen(&memory, 1, 0x10), 0xc000_8004);
        bus.write_config(SLOT_BYTES as u64 + 0x10, &u32::MAX.to_le_bytes());
        assert_eq!(seen(&memory, 1, 0x10), 0xffff_8004);
    }

    #[test]
    fn registers_answer_only_while_the_guest_lets_them() {
        let (_memory, mut bus) = plugged();
        assert!(bus.find(bar_address(1)).is_none());
        bus.write_config(SLOT_BYTES as u64 + 4, &[2, 0]);
        assert_eq!(bus.find(bar_address(1) + 0x7fff).unwrap().1, 0x7fff);
        assert!(bus.find(bar_address(2)).is_none());
    }

    #[test]
    fn an_unplugged_slot_is_empty() {
        let (memory, mut bus) = plugged();
        bus.unplug(1);
        assert_eq!(seen(&memory, 1, 0), u32::MAX);
        assert_eq!(bus.free_slot(), Some(1));
    }

    #[test]
    fn writes_to_functions_that_do_not_exist_are_lost() {
        let (memory, mut bus) = plugged();
        for offset in [0x1000, SLOT_BYTES as u64 * 2, ECAM_SIZE, u64::MAX] {
            bus.write_config(offset, &[0; 4]);
        }
        assert_eq!(seen(&memory, 2, 0), u32::MAX);
    }
}
