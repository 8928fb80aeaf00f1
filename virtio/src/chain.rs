//! One request of the driver: a chain of descriptors, checked once and turned into slices of guest memory.
//!
//! A driver may cut a request into descriptors as it likes (virtio 1.3 §2.7.4.2), so devices never look at
//! descriptors, only at the bytes to read and the room to write.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice,
};

/// Bytes of a descriptor (virtio 1.3 §2.7.5).
const DESCRIPTOR: u32 = 16;

/// Bytes of the guest in order, scattered over its memory.
#[derive(Debug, Default)]
pub struct Buffers<'m> {
    slices: Vec<VolatileSlice<'m>>,
    bytes: usize,
}

/// A request: what the driver wrote, and where it wants the answer.
#[derive(Debug)]
pub struct Chain<'m> {
    /// What the chain is returned under.
    pub head: u16,
    /// What the driver wrote.
    pub readable: Buffers<'m>,
    /// Where the device writes.
    pub writable: Buffers<'m>,
}

impl<'m> Chain<'m> {
    /// Checks and collects the chain at `head` of `table`; returns nothing if it breaks the rules.
    ///
    /// At most as many descriptors as the table has: a chain is never longer than its queue, indirect descriptors
    /// included (virtio 1.3 §2.7.5.3.1).
    pub(crate) fn collect(head: u16, table: Table, map: &'m GuestMemoryMmap) -> Option<Self> {
        let mut chain = Self {
            head,
            readable: Buffers::default(),
            writable: Buffers::default(),
        };
        let (mut table, limit) = (table, table.descriptors);
        let (mut index, mut is_indirect) = (head, false);
        let mut total = 0_u32;
        let mut collected = 0;
        while collected < limit {
            let descriptor = table.read(index, map)?;
            if descriptor.refers_to_indirect_table() {
                // Only the last descriptor of a queue's own table may be one (virtio 1.3 §2.7.5.3.1).
                if is_indirect || descriptor.has_next() {
                    return None;
                }
                (table, index, is_indirect) = (Table::indirect(descriptor)?, 0, true);
                continue;
            }
            collected = collected.saturating_add(1);
            // No chain is longer than 2³² bytes (virtio 1.3 §2.7.5.2).
            total = total.checked_add(descriptor.len())?;
            chain.add(descriptor, map)?;
            if !descriptor.has_next() {
                return Some(chain);
            }
            index = descriptor.next();
        }
        None
    }

    /// Adds one piece to what there is to read or to write.
    fn add(&mut self, descriptor: Descriptor, map: &'m GuestMemoryMmap) -> Option<()> {
        let (part, access) = if descriptor.is_write_only() {
            (&mut self.writable, Permissions::Write)
        } else if self.writable.slices.is_empty() {
            (&mut self.readable, Permissions::Read)
        } else {
            // What the device reads comes before what it writes (virtio 1.3 §2.7.4.2).
            return None;
        };
        let length = usize::try_from(descriptor.len()).ok()?;
        let slices = GuestMemory::get_slices(map, descriptor.addr(), length, access).ok()?;
        for slice in slices {
            part.push(slice.ok()?)?;
        }
        Some(())
    }
}

/// A table of descriptors: a queue's own, or one that a descriptor refers to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) start: GuestAddress,
    pub(crate) descriptors: u16,
}

impl Table {
    fn indirect(descriptor: Descriptor) -> Option<Self> {
        let bytes = descriptor.len();
        let descriptors = u16::try_from(bytes / DESCRIPTOR).ok()?;
        bytes.is_multiple_of(DESCRIPTOR).then_some(Self {
            start: descriptor.addr(),
            descriptors,
        })
    }

    fn read(self, index: u16, map: &GuestMemoryMmap) -> Option<Descriptor> {
        let offset = u64::from(index) * u64::from(DESCRIPTOR);
        let at = self.start.checked_add(offset)?;
        (index < self.descriptors)
            .then(|| map.read_obj(at).ok())
            .flatten()
    }
}

impl<'m> Buffers<'m> {
    /// Returns how many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Returns whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Returns the slices, in order.
    #[must_use]
    pub fn slices(&self) -> &[VolatileSlice<'m>] {
        &self.slices
    }

    /// Returns the part of `length` bytes from `start` on, or what there is of it.
    #[must_use]
    pub fn part(&self, start: usize, length: usize) -> Self {
        let mut part = Self::default();
        for piece in self.pieces(start, length) {
            part.bytes = part.bytes.saturating_add(piece.len());
            part.slices.push(piece);
        }
        part
    }

    /// Copies bytes from `start` on into `target`; returns how many there were.
    pub fn read(&self, start: usize, target: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in self.pieces(start, target.len()) {
            let rest = target.get_mut(done..).unwrap_or_default();
            done = done.saturating_add(piece.copy_to(rest));
        }
        done
    }

    /// Returns the `N` bytes from `start` on, if they are there.
    #[must_use]
    pub fn read_array<const N: usize>(&self, start: usize) -> Option<[u8; N]> {
        let mut array = [0; N];
        (self.read(start, &mut array) == N).then_some(array)
    }

    /// Adds a copy of all bytes from `start` on to `target`.
    pub fn append_to(&self, start: usize, target: &mut Vec<u8>) {
        let before = target.len();
        target.resize(before.saturating_add(self.bytes.saturating_sub(start)), 0);
        self.read(start, target.get_mut(before..).unwrap_or_default());
    }

    /// Copies `source` to `start` and on; returns how many bytes found room.
    pub fn write(&self, start: usize, source: &[u8]) -> usize {
        let mut done = 0;
        for piece in self.pieces(start, source.len()) {
            let rest = source.get(done..).unwrap_or_default();
            piece.copy_from(rest);
            done = done.saturating_add(piece.len());
        }
        done
    }

    /// Returns the slices that make up `length` bytes from `start` on, or what there is of them.
    fn pieces(&self, start: usize, length: usize) -> impl Iterator<Item = VolatileSlice<'m>> {
        let (mut skip, mut left) = (start, length);
        self.slices.iter().filter_map(move |slice| {
            let from = skip.min(slice.len());
            let take = slice.len().saturating_sub(from).min(left);
            skip = skip.saturating_sub(from);
            left = left.saturating_sub(take);
            if take == 0 {
                return None;
            }
            slice.subslice(from, take).ok()
        })
    }

    fn push(&mut self, slice: VolatileSlice<'m>) -> Option<()> {
        self.bytes = self.bytes.checked_add(slice.len())?;
        self.slices.push(slice);
        Some(())
    }
}
