//! One function's configuration space (PCI Express 6.0 §7.5): its bytes, and which bits the guest may write.

/// Bytes of a configuration space, extended space included.
pub(crate) const CONFIG_BYTES: usize = 4096;

/// The header's fields (PCI 3.0 §6.1).
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CLASS: usize = 0x09;
const BAR0: usize = 0x10;
const SUBSYSTEM_VENDOR: usize = 0x2c;
const SUBSYSTEM: usize = 0x2e;
const CAPABILITIES: usize = 0x34;

/// Capabilities start behind the header and end before extended space.
const FIRST_CAPABILITY: usize = 0x40;
/// Where extended space begins (PCI Express 6.0 §7.2.2); there is nothing in it.
pub(crate) const FIRST_EXTENDED: usize = 0x100;

const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_PARITY: u16 = 1 << 6;
const COMMAND_SYSTEM_ERROR: u16 = 1 << 8;
const COMMAND_NO_INTX: u16 = 1 << 10;
const STATUS_HAS_CAPABILITIES: u16 = 1 << 4;
/// A 64-bit memory BAR, not prefetchable.
const BAR_MEMORY_64: u32 = 0b100;

/// What a function is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) subsystem_vendor: u16,
    pub(crate) subsystem: u16,
    pub(crate) revision: u8,
    /// Base class, subclass and interface, most significant byte first.
    pub(crate) class: u32,
}

/// One function's configuration space.
#[derive(Clone)]
pub(crate) struct ConfigSpace {
    bytes: Box<[u8; CONFIG_BYTES]>,
    writable: Box<[u8; CONFIG_BYTES]>,
    last_capability: Option<usize>,
    end_of_capabilities: usize,
}

impl ConfigSpace {
    /// Makes a function with a type 0 header and no BAR.
    pub(crate) fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: Box::new([0; CONFIG_BYTES]),
            writable: Box::new([0; CONFIG_BYTES]),
            last_capability: None,
            end_of_capabilities: FIRST_CAPABILITY,
        };
        space.set(0, &identity.vendor.to_le_bytes());
        space.set(2, &identity.device.to_le_bytes());
        space.set(REVISION, &[identity.revision]);
        space.set(CLASS, &identity.class.to_le_bytes()[..3]);
        space.set(SUBSYSTEM_VENDOR, &identity.subsystem_vendor.to_le_bytes());
        space.set(SUBSYSTEM, &identity.subsystem.to_le_bytes());
        let command = COMMAND_MEMORY
            | COMMAND_BUS_MASTER
            | COMMAND_PARITY
            | COMMAND_SYSTEM_ERROR
            | COMMAND_NO_INTX;
        space.let_write(COMMAND, &command.to_le_bytes());
        space
    }

    /// Adds a 64-bit memory BAR 0 of `size` bytes, a power of two, at `address`.
    pub(crate) fn set_bar(&mut self, address: u64, size: u32) {
        assert!(size.is_power_of_two() && size >= 16 && address.is_multiple_of(u64::from(size)));
        self.set(BAR0, &(address | u64::from(BAR_MEMORY_64)).to_le_bytes());
        // Bits below the size do not exist, which is how the guest finds the size.
        self.let_write(BAR0, &(!(u64::from(size) - 1)).to_le_bytes());
    }

    /// Returns where BAR 0 is now, while the guest lets it answer.
    pub(crate) fn bar(&self) -> Option<u64> {
        let command = u16::from_le_bytes([self.bytes[COMMAND], self.bytes[COMMAND + 1]]);
        let mut bar = [0; 8];
        bar.copy_from_slice(&self.bytes[BAR0..BAR0 + 8]);
        (command & COMMAND_MEMORY != 0).then(|| u64::from_le_bytes(bar) & !0xf)
    }

    /// Adds a capability; `body` follows its two header bytes, and `writable` says which bits of the body the
    /// guest may write. Returns where the body is.
    pub(crate) fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let start = self.end_of_capabilities;
        let end = start + 2 + body.len();
        assert!(
            end <= FIRST_EXTENDED,
            "capabilities are a fixed set that fits"
        );
        let link = self.last_capability.map_or(CAPABILITIES, |last| last + 1);
        let at = u8::try_from(start).expect("capabilities lie in the first 256 bytes");
        self.set(link, &[at]);
        self.set(start, &[id, 0]);
        self.set(start + 2, body);
        self.let_write(start + 2, writable);
        self.set(STATUS, &STATUS_HAS_CAPABILITIES.to_le_bytes());
        self.last_capability = Some(start);
        self.end_of_capabilities = end.next_multiple_of(4);
        start + 2
    }

    /// Takes the guest's write; what the guest may not write stays.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) {
        let places = self.bytes.iter_mut().zip(self.writable.iter()).skip(offset);
        for ((byte, mask), new) in places.zip(data) {
            *byte = (*byte & !mask) | (new & mask);
        }
    }

    /// Writes as the device itself.
    pub(crate) fn set(&mut self, offset: usize, data: &[u8]) {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    /// Returns all bytes.
    pub(crate) fn bytes(&self) -> &[u8; CONFIG_BYTES] {
        &self.bytes
    }

    fn let_write(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new(Identity {
            vendor: 0x1af4,
            device: 0x1042,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            revision: 1,
            class: 0x01_80_00,
        });
        space.set_bar(0xc000_8000, 0x8000);
        space.add_capability(0x09, &[1, 2, 3], &[]);
        space.add_capability(0x11, &[0; 10], &[0x00, 0xc0]);
        space
    }

    fn word(space: &ConfigSpace, offset: usize) -> u32 {
        u32::from_le_bytes(space.bytes()[offset..offset + 4].try_into().unwrap())
    }

    #[test]
    fn the_header_is_a_type_0_header() {
        let space = space();
        assert_eq!(word(&space, 0), 0x1042_1af4);
        assert_eq!(word(&space, 8), 0x0180_0001);
        assert_eq!(word(&space, 0x2c), 0x1100_1af4);
    }

    #[test]
    fn a_bar_tells_its_size_and_keeps_its_place() {
        let mut space = space();
        space.write(0x10, &u32::MAX.to_le_bytes());
        space.write(0x14, &u32::MAX.to_le_bytes());
        assert_eq!(word(&space, 0x10), 0xffff_8004);
        assert_eq!(word(&space, 0x14), 0xffff_ffff);
        space.write(0x10, &0xc001_0000_u32.to_le_bytes());
        space.write(0x14, &0_u32.to_le_bytes());
        assert_eq!(space.bar(), None);
        space.write(0x04, &COMMAND_MEMORY.to_le_bytes());
        assert_eq!(space.bar(), Some(0xc001_0000));
    }

    #[test]
    fn the_capability_list_ends() {
        let space = space();
        let mut at = usize::from(space.bytes()[0x34]);
        let mut found = Vec::new();
        while at != 0 {
            found.push(space.bytes()[at]);
            assert_eq!(at % 4, 0);
            at = usize::from(space.bytes()[at + 1]);
        }
        assert_eq!(found, [0x09, 0x11]);
    }

    proptest! {
        #[test]
        fn the_guest_changes_only_what_it_may(
            writes in prop::collection::vec((0_usize..CONFIG_BYTES + 8, any::<u64>(), 1_usize..=8), 0..64)
        ) {
            let before = space();
            let mut after = before.clone();
            for (offset, value, width) in writes {
                after.write(offset, &value.to_le_bytes()[..width]);
            }
            for index in 0..CONFIG_BYTES {
                let changed = before.bytes()[index] ^ after.bytes()[index];
                prop_assert_eq!(changed & !before.writable[index], 0, "byte {:#x}", index);
            }
            prop_assert_eq!(before.bytes()[0x34], after.bytes()[0x34]);
        }
    }
}
