//! Bounds of descriptor chains: whatever the table holds, what comes out is what the standard allows, and lies in memory.

use std::fs::File;

use proptest::prelude::*;
use rustix::fs::MemfdFlags;
use vm_memory::Bytes;

use super::*;
use crate::memory::Place;

const SIZE: u16 = 8;

/// Two regions with a hole between them, neither at 0.
const FIRST: u64 = 0x1_0000;
const SECOND: u64 = 0x4_0000;
const REGION: u64 = 0x1_0000;

const TABLE: u64 = FIRST;
const AVAILABLE: u64 = FIRST + 0x200;
const USED: u64 = FIRST + 0x300;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

fn memory() -> Memory {
    let regions = [FIRST, SECOND].map(|guest| {
        let memfd = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memfd, REGION).unwrap();
        let place = Place {
            guest,
            user: guest,
            bytes: REGION,
            offset: 0,
        };
        (place, File::from(memfd))
    });
    Memory::new(regions.into()).unwrap()
}

fn ring(memory: &Memory) -> Ring {
    let mut ring = Ring::new();
    assert!(ring.set_size(u32::from(SIZE)));
    let (table, available) = (GuestAddress(TABLE), GuestAddress(AVAILABLE));
    assert!(ring.set_addresses(table, available, GuestAddress(USED)));
    ring.set_enabled(true);
    assert!(ring.start(memory));
    ring
}

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let address = prop_oneof![
        FIRST..FIRST + REGION,
        SECOND..SECOND + REGION,
        Just(FIRST + REGION - 8),
        any::<u64>(),
    ];
    let length = prop_oneof![0..64_u32, Just(REGION as u32), any::<u32>()];
    (address, length, 0..4_u16, 0..SIZE + 2).prop_map(|(address, length, flags, next)| Descriptor {
        address,
        length,
        flags,
        next,
    })
}

/// What the standard says of the chain from `head` on: bytes to read and room to write, or nothing if it breaks the rules
/// (virtio 1.3 §2.7.5).
fn model(table: &[Descriptor], head: u16) -> Option<(usize, usize)> {
    let (mut readable, mut writable, mut wrote) = (0_u64, 0_u64, false);
    let mut index = head;
    for _ in 0..SIZE {
        let descriptor = table.get(usize::from(index))?;
        let end = descriptor.address.checked_add(u64::from(descriptor.length));
        let inside = |start: u64| {
            descriptor.address >= start && end.is_some_and(|end| end <= start + REGION)
        };
        if descriptor.length > 0 && !inside(FIRST) && !inside(SECOND) {
            return None;
        }
        let is_write = descriptor.flags & WRITE != 0;
        if wrote && !is_write {
            return None;
        }
        // A piece without bytes says nothing about what may follow.
        wrote |= is_write && descriptor.length > 0;
        *(if is_write {
            &mut writable
        } else {
            &mut readable
        }) += u64::from(descriptor.length);
        if descriptor.flags & NEXT == 0 {
            return Some((
                usize::try_from(readable).ok()?,
                usize::try_from(writable).ok()?,
            ));
        }
        index = descriptor.next;
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn chain_is_taken_exactly_if_the_standard_allows_it(
        table in prop::collection::vec(descriptor(), usize::from(SIZE)),
        head in 0..SIZE + 2,
    ) {
        let memory = memory();
        let mut ring = ring(&memory);
        for (index, descriptor) in table.iter().enumerate() {
            let fields: [&[u8]; 4] = [
                &descriptor.address.to_le_bytes(),
                &descriptor.length.to_le_bytes(),
                &descriptor.flags.to_le_bytes(),
                &descriptor.next.to_le_bytes(),
            ];
            let at = GuestAddress(TABLE + 16 * index as u64);
            memory.map().write_slice(&fields.concat(), at).unwrap();
        }
        memory.map().write_obj(head.to_le(), GuestAddress(AVAILABLE + 4)).unwrap();
        memory.map().write_obj(1_u16.to_le(), GuestAddress(AVAILABLE + 2)).unwrap();
        // The table lies in the first region too, so nothing is written through the chain before it is compared.
        let taken = ring.pop(&memory).map(|chain| (chain.readable.len(), chain.writable.len()));
        prop_assert_eq!(taken, model(&table, head));
        // A ring that broke the rules gives nothing any more.
        prop_assert!(ring.pop(&memory).is_none());
    }
}
