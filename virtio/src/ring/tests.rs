//! Bounds of descriptor chains: whatever the table holds, what comes out is what the standard allows, and lies in memory.

use std::fs::File;

use proptest::prelude::*;
use rustix::fs::MemfdFlags;
use vhost::vhost_user::message::VhostUserInflight;
use vm_memory::Bytes;

use super::*;
use crate::inflight::Inflight;
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

/// A ring with a record of what is in flight, as a daemon has it that was started at `base`.
fn recorded(memory: &Memory, file: &File, base: u16) -> Ring {
    let described = VhostUserInflight::new(file.metadata().unwrap().len(), 0, 1, SIZE);
    let inflight = Inflight::map(&described, file).unwrap();
    let mut ring = Ring::new();
    assert!(ring.set_size(u32::from(SIZE)));
    let (table, available) = (GuestAddress(TABLE), GuestAddress(AVAILABLE));
    assert!(ring.set_addresses(table, available, GuestAddress(USED)));
    ring.set_base(base);
    ring.set_enabled(true);
    ring.set_record(inflight.record(0));
    assert!(ring.start(memory));
    ring
}

fn word(memory: &Memory, at: u64) -> u16 {
    memory.map().read_obj(GuestAddress(at)).unwrap()
}

/// Makes `heads` available, each a request of one descriptor, from entry `from` of the available ring on.
fn offer(memory: &Memory, from: u16, heads: &[u16]) {
    let map = memory.map();
    for (position, head) in (from..).zip(heads) {
        let at = GuestAddress(TABLE + 16 * u64::from(*head));
        map.write_obj(FIRST + 0x800, at).unwrap();
        map.write_obj(8_u32, GuestAddress(at.0 + 8)).unwrap();
        map.write_obj(0_u32, GuestAddress(at.0 + 12)).unwrap();
        let slot = AVAILABLE + 4 + 2 * u64::from(position % SIZE);
        map.write_obj(*head, GuestAddress(slot)).unwrap();
        map.write_obj(position.wrapping_add(1), GuestAddress(AVAILABLE + 2))
            .unwrap();
    }
}

fn heads(ring: &mut Ring, memory: &Memory) -> Vec<u16> {
    std::iter::from_fn(|| ring.pop(memory).map(|chain| chain.head)).collect()
}

#[test]
fn what_a_dead_daemon_had_is_taken_again_and_nothing_else() {
    let (memory, file) = (memory(), Inflight::make(1).unwrap());
    let mut first = recorded(&memory, &file, 0);
    offer(&memory, 0, &[0, 1, 2, 3]);
    assert_eq!(heads(&mut first, &memory), [0, 1, 2, 3]);
    // Out of order: where the used ring ends says nothing about which are left.
    first.push(&memory, 1, 0);
    first.push(&memory, 3, 0);
    // The driver uses the heads that came back, whose entries of the available ring others had.
    offer(&memory, 4, &[1, 3, 4, 5, 6]);
    drop(first);
    let mut second = recorded(&memory, &file, word(&memory, USED + 2));
    assert_eq!(heads(&mut second, &memory), [0, 2, 1, 3, 4, 5, 6]);
    for head in [6, 0, 1, 2, 3, 4, 5] {
        second.push(&memory, head, 0);
    }
    drop(second);
    let mut third = recorded(&memory, &file, word(&memory, USED + 2));
    assert!(heads(&mut third, &memory).is_empty());
    offer(&memory, 9, &[7]);
    assert_eq!(heads(&mut third, &memory), [7]);
}

#[test]
fn request_whose_return_was_not_noted_is_not_taken_again() {
    let (memory, file) = (memory(), Inflight::make(1).unwrap());
    let mut first = recorded(&memory, &file, 0);
    offer(&memory, 0, &[5, 6]);
    assert_eq!(heads(&mut first, &memory), [5, 6]);
    // The daemon dies between the two halves of a return: the driver has it, the record does not say so.
    let mut dying = first.record.take().unwrap();
    dying.returning(5);
    first.push(&memory, 5, 0);
    let mut second = recorded(&memory, &file, word(&memory, USED + 2));
    assert_eq!(heads(&mut second, &memory), [6]);
    // And before the first half.
    second.record.take().unwrap().returning(6);
    let mut third = recorded(&memory, &file, word(&memory, USED + 2));
    assert_eq!(heads(&mut third, &memory), [6]);
}

#[test]
fn request_that_was_put_back_is_taken_in_its_order() {
    let (memory, file) = (memory(), Inflight::make(1).unwrap());
    let mut first = recorded(&memory, &file, 0);
    offer(&memory, 0, &[0, 1, 2]);
    assert_eq!(first.pop(&memory).unwrap().head, 0);
    assert_eq!(first.pop(&memory).unwrap().head, 1);
    first.unpop();
    first.unpop();
    assert_eq!(first.pop(&memory).unwrap().head, 0);
    let mut second = recorded(&memory, &file, word(&memory, USED + 2));
    assert_eq!(second.pop(&memory).unwrap().head, 0);
    second.unpop();
    assert_eq!(heads(&mut second, &memory), [0, 1, 2]);
}

#[test]
fn record_that_is_nonsense_harms_nobody() {
    let memory = memory();
    let file = Inflight::make(1).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut bytes = vec![0xff; length];
    bytes[8..12].copy_from_slice(&[1, 0, 8, 0]);
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    offer(&memory, 0, &[0, 1, 2, 3, 4, 5, 6, 7]);
    let mut ring = recorded(&memory, &file, 0);
    assert!(heads(&mut ring, &memory).len() <= usize::from(SIZE));
    // Too short for what it is said to be.
    let described = VhostUserInflight::new(64, 0, 1, SIZE);
    assert!(
        Inflight::map(&described, &file)
            .unwrap()
            .record(0)
            .is_none()
    );
    let described = VhostUserInflight::new(1 << 40, 0, 1, SIZE);
    Inflight::map(&described, &file).unwrap_err();
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
