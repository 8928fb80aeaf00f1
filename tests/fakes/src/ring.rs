//! The driver's half of a split virtqueue (virtio 1.3 §2.7), written from the specification and not from the device's.

use std::os::fd::AsRawFd;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// `VIRTQ_DESC_F_NEXT`.
pub const NEXT: u16 = 1;
/// `VIRTQ_DESC_F_WRITE`.
pub const WRITE: u16 = 2;
/// `VIRTQ_DESC_F_INDIRECT`.
pub const INDIRECT: u16 = 4;

/// How long a test waits for the device.
const PATIENCE: Duration = Duration::from_secs(10);

/// A piece of a request.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Guest-physical address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// For the device to write.
    pub writable: bool,
}

/// The driver's half of a queue.
#[derive(Debug)]
pub struct DriverRing {
    memory: GuestMemoryMmap,
    /// What the driver kicks.
    pub kick: EventFd,
    /// What the device interrupts by.
    pub call: EventFd,
    /// Descriptors.
    pub size: u16,
    /// Where the descriptor table is.
    pub table: u64,
    /// Where the available ring is.
    pub available: u64,
    /// Where the used ring is.
    pub used: u64,
    heap: std::ops::Range<u64>,
    free: Vec<u16>,
    chains: Vec<Vec<u16>>,
    next_available: u16,
    next_used: u16,
    event_index: bool,
    kicked: u16,
}

impl DriverRing {
    /// Makes an empty ring in the `bytes` of `memory` from `start` on, and what is left of them room for buffers.
    #[must_use]
    pub fn new(memory: &GuestMemoryMmap, start: u64, bytes: u64, size: u16) -> Self {
        let available = start + 16 * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(4);
        let heap = (used + 6 + 8 * u64::from(size)).next_multiple_of(64);
        Self {
            memory: memory.clone(),
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
            size,
            table: start,
            available,
            used,
            heap: heap..start + bytes,
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); usize::from(size)],
            next_available: 0,
            next_used: 0,
            event_index: false,
            kicked: 0,
        }
    }

    /// Takes memory for buffers.
    pub fn allocate(&mut self, bytes: u32) -> u64 {
        let address = self.heap.start;
        self.heap.start = (address + u64::from(bytes)).next_multiple_of(16);
        assert!(
            self.heap.start <= self.heap.end,
            "the test uses too much guest memory"
        );
        address
    }

    /// Gives back all buffers from `address` on, which nobody uses any more.
    pub fn give_back(&mut self, address: u64) {
        self.heap.start = address;
    }

    /// Puts bytes into fresh guest memory.
    pub fn store(&mut self, bytes: &[u8]) -> Piece {
        let length = u32::try_from(bytes.len()).unwrap();
        let address = self.allocate(length);
        self.write(address, bytes);
        Piece {
            address,
            length,
            writable: false,
        }
    }

    /// Makes room for the device to write.
    pub fn room(&mut self, length: u32) -> Piece {
        Piece {
            address: self.allocate(length),
            length,
            writable: true,
        }
    }

    /// Writes guest memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    /// Reads guest memory.
    #[must_use]
    pub fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        self.memory
            .read_slice(&mut out, GuestAddress(address))
            .unwrap();
        out
    }

    /// Makes a request of `pieces` available; returns its head, or nothing if the table is full.
    pub fn offer(&mut self, pieces: &[Piece]) -> Option<u16> {
        if self.free.len() < pieces.len() {
            return None;
        }
        let chain: Vec<u16> = pieces.iter().map(|_| self.free.pop().unwrap()).collect();
        for (position, (piece, &index)) in pieces.iter().zip(&chain).enumerate() {
            let next = chain.get(position + 1);
            let flags = if piece.writable { WRITE } else { 0 } | next.map_or(0, |_| NEXT);
            self.describe(index, *piece, flags, next.copied().unwrap_or(0));
        }
        let head = chain[0];
        self.chains[usize::from(head)] = chain;
        self.publish(head);
        Some(head)
    }

    /// Makes a request whose descriptors are in a table of their own.
    pub fn offer_indirect(&mut self, pieces: &[Piece]) -> u16 {
        let bytes = 16 * u32::try_from(pieces.len()).unwrap();
        let table = self.allocate(bytes);
        for (position, piece) in pieces.iter().enumerate() {
            let next = u16::try_from(position + 1).unwrap();
            let more = if position + 1 < pieces.len() { NEXT } else { 0 };
            let flags = if piece.writable { WRITE } else { 0 } | more;
            self.describe_at(table + 16 * position as u64, *piece, flags, next);
        }
        let head = self.free.pop().unwrap();
        let whole = Piece {
            address: table,
            length: bytes,
            writable: false,
        };
        self.describe(head, whole, INDIRECT, 0);
        self.chains[usize::from(head)] = vec![head];
        self.publish(head);
        head
    }

    /// Writes one descriptor as it is told, right or wrong.
    pub fn describe(&self, index: u16, piece: Piece, flags: u16, next: u16) {
        self.describe_at(self.table + 16 * u64::from(index), piece, flags, next);
    }

    fn describe_at(&self, at: u64, piece: Piece, flags: u16, next: u16) {
        self.write(at, &piece.address.to_le_bytes());
        self.write(at + 8, &piece.length.to_le_bytes());
        self.write(at + 12, &flags.to_le_bytes());
        self.write(at + 14, &next.to_le_bytes());
    }

    /// Makes any head available, right or wrong.
    pub fn publish(&mut self, head: u16) {
        let slot = self.next_available % self.size;
        self.write(
            self.available + 4 + 2 * u64::from(slot),
            &head.to_le_bytes(),
        );
        self.next_available = self.next_available.wrapping_add(1);
        self.set_available_index(self.next_available);
    }

    /// Writes the index of the available ring, right or wrong.
    pub fn set_available_index(&self, index: u16) {
        self.memory
            .store(
                index.to_le(),
                GuestAddress(self.available + 2),
                Ordering::Release,
            )
            .unwrap();
    }

    /// Kicks the device if it wants to be.
    pub fn kick(&mut self) {
        // The device's wish must be read after it can see the request.
        fence(Ordering::SeqCst);
        let wanted = if self.event_index {
            let event = self.load(self.used + 4 + 8 * u64::from(self.size));
            let added = self.next_available.wrapping_sub(self.kicked);
            self.next_available.wrapping_sub(event).wrapping_sub(1) < added
        } else {
            self.load(self.used) & 1 == 0
        };
        self.kicked = self.next_available;
        if wanted {
            self.kick.write(1).unwrap();
        }
    }

    /// Takes back one request: its head and how many bytes were written.
    pub fn take(&mut self) -> Option<(u16, u32)> {
        if self.load(self.used + 2) == self.next_used {
            return None;
        }
        fence(Ordering::Acquire);
        let slot = self.next_used % self.size;
        let entry = self.read(self.used + 4 + 8 * u64::from(slot), 8);
        let head = u16::try_from(u32::from_le_bytes(entry[..4].try_into().unwrap())).unwrap();
        let written = u32::from_le_bytes(entry[4..].try_into().unwrap());
        self.next_used = self.next_used.wrapping_add(1);
        if self.event_index {
            let wish = self.available + 4 + 2 * u64::from(self.size);
            self.memory
                .store(self.next_used.to_le(), GuestAddress(wish), Ordering::SeqCst)
                .unwrap();
            fence(Ordering::SeqCst);
        }
        let chain = std::mem::take(&mut self.chains[usize::from(head)]);
        self.free.extend(chain);
        Some((head, written))
    }

    /// Returns how many requests the device has returned, as it says itself.
    #[must_use]
    pub fn returned(&self) -> u16 {
        self.load(self.used + 2)
    }

    /// Waits for the device to return a request.
    pub fn wait(&mut self) -> (u16, u32) {
        self.wait_for(PATIENCE)
            .expect("the device returned nothing in time")
    }

    /// Waits for a request for so long.
    pub fn wait_for(&mut self, patience: Duration) -> Option<(u16, u32)> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(taken) = self.take() {
                return Some(taken);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let call = Epoll::new().unwrap();
            let wish = EpollEvent::new(EventSet::IN, 0);
            call.ctl(ControlOperation::Add, self.call.as_raw_fd(), wish)
                .unwrap();
            let timeout = i32::try_from(left.as_millis()).unwrap() + 1;
            call.wait(timeout, &mut [EpollEvent::default()]).unwrap();
            // Not rung yet is as good as rung: the used ring is looked at in either case.
            let _ = self.call.read();
        }
    }

    /// Goes on as if so many requests had been made and returned.
    pub fn begin_at(&mut self, count: u16) {
        self.next_available = count;
        self.next_used = count;
        self.kicked = count;
        self.set_available_index(count);
        self.write(self.used + 2, &count.to_le_bytes());
        // Both sides asked for a bell with the next one.
        let size = u64::from(self.size);
        for event in [self.used + 4 + 8 * size, self.available + 4 + 2 * size] {
            self.write(event, &count.to_le_bytes());
        }
    }

    /// Forgets what the device was told, as a driver does after a reset.
    pub fn reset(&mut self) {
        self.next_available = 0;
        self.next_used = 0;
        self.kicked = 0;
        self.free = (0..self.size).rev().collect();
        let size = usize::from(self.size);
        self.write(self.available, &vec![0; 6 + 2 * size]);
        self.write(self.used, &vec![0; 6 + 8 * size]);
    }

    /// Uses event indices, or not.
    pub fn use_event_index(&mut self, used: bool) {
        self.event_index = used;
    }

    fn load(&self, address: u64) -> u16 {
        u16::from_le(
            self.memory
                .load(GuestAddress(address), Ordering::Acquire)
                .unwrap(),
        )
    }
}
