//! A device on guest memory without a front end or a driver, for the fuzz targets (fuzz/): what a hostile guest can say, some
//! ten thousand times a second.

use std::fs::File;

use rustix::fs::MemfdFlags;
use vm_memory::{Bytes, GuestAddress};

use crate::device::{Device, Guest};
use crate::memory::{Memory, Place};
use crate::poll::{Poll, Ready};
use crate::ring::Ring;

/// Bytes of guest memory: a buffer of the largest frame and what lies around it.
pub const MEMORY: u64 = 1 << 18;

/// Descriptors of a queue.
pub const SIZE: u16 = 8;

/// Where the tables of a queue are: queue `n` begins at `n` times the stride.
const STRIDE: u64 = 256;
const AVAILABLE: u64 = 128;
const USED: u64 = 160;

/// Where buffers begin, behind the tables of the queues there can be.
const HEAP: u64 = 16 * STRIDE;

/// Guest memory, which is kept from one execution to the next.
#[derive(Debug)]
pub struct Ram(Memory);

impl Default for Ram {
    fn default() -> Self {
        let memfd = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC).expect("a memory file");
        rustix::fs::ftruncate(&memfd, MEMORY).expect("room in memory");
        let place = Place {
            guest: 0,
            user: 0,
            bytes: MEMORY,
            offset: 0,
        };
        Self(Memory::new(vec![(place, File::from(memfd))]).expect("a mapping"))
    }
}

/// A device and its queues.
#[derive(Debug)]
pub struct Harness<'r, D> {
    device: D,
    memory: &'r Memory,
    rings: Vec<Ring>,
    poll: Poll,
    put_off: bool,
    heap: u64,
    next: Vec<(u16, u16)>,
}

impl<'r, D: Device> Harness<'r, D> {
    /// Starts all queues of `device`, empty, with every feature that it has.
    pub fn new(ram: &'r Ram, mut device: D, event_index: bool) -> Self {
        let poll = Poll::new().expect("an epoll");
        device.start(&poll).expect("the device's descriptors");
        let mut harness = Self {
            rings: Vec::new(),
            device,
            memory: &ram.0,
            poll,
            put_off: false,
            heap: HEAP,
            next: Vec::new(),
        };
        harness.restart(event_index);
        harness
    }

    /// Starts all queues once more, empty: for a device that remembers nothing, which need not be made each time.
    pub fn restart(&mut self, event_index: bool) {
        let features = self.device.features();
        self.device.negotiated(features);
        let zeroes = [0; HEAP as usize];
        let memory = self.memory;
        memory
            .map()
            .write_slice(&zeroes, GuestAddress(0))
            .expect("memory");
        let ring = |number: usize| {
            let start = number as u64 * STRIDE;
            let mut ring = Ring::new();
            let at = |offset: u64| GuestAddress(start + offset);
            assert!(ring.set_size(u32::from(SIZE)));
            assert!(ring.set_addresses(at(0), at(AVAILABLE), at(USED)));
            ring.set_event_index(event_index);
            ring.set_enabled(true);
            assert!(ring.start(memory));
            ring
        };
        let queues = self.device.queues();
        self.rings = (0..queues).map(ring).collect();
        self.put_off = false;
        self.heap = HEAP;
        self.next = vec![(0, 0); queues];
    }

    /// Writes guest memory as it is told, tables included.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        // What does not fit is left out.
        let _part = self.memory.map().write(bytes, GuestAddress(address));
    }

    /// Reads guest memory.
    pub fn read(&self, address: u64, bytes: &mut [u8]) {
        let _part = self.memory.map().read(bytes, GuestAddress(address));
    }

    /// Offers a request of `readable` in two pieces cut at `cut` and room for `writable` bytes; returns where the room is.
    pub fn offer(&mut self, queue: usize, readable: &[u8], cut: usize, writable: u32) -> u64 {
        let (first, second) = readable.split_at(cut.min(readable.len()));
        let mut pieces = Vec::new();
        for piece in [first, second] {
            if !piece.is_empty() {
                self.write(self.heap, piece);
                pieces.push((self.heap, piece.len() as u32, 0));
                self.heap += piece.len() as u64;
            }
        }
        let room = self.heap;
        if writable > 0 {
            pieces.push((room, writable, 2_u16));
            self.heap += u64::from(writable);
        }
        if self.heap > MEMORY / 2 {
            self.heap = HEAP;
        }
        let start = queue as u64 * STRIDE;
        let Some((descriptor, available)) = self.next.get(queue).copied() else {
            return room;
        };
        let count = pieces.len() as u16;
        for (position, (address, length, flags)) in pieces.into_iter().enumerate() {
            let index = (descriptor + position as u16) % SIZE;
            let more = u16::from(position as u16 + 1 < count);
            let fields: [&[u8]; 4] = [
                &address.to_le_bytes(),
                &length.to_le_bytes(),
                &(flags | more).to_le_bytes(),
                &((index + 1) % SIZE).to_le_bytes(),
            ];
            self.write(start + 16 * u64::from(index), &fields.concat());
        }
        if count > 0 {
            let slot = start + AVAILABLE + 4 + 2 * u64::from(available % SIZE);
            self.write(slot, &(descriptor % SIZE).to_le_bytes());
            let available = available.wrapping_add(1);
            self.write(start + AVAILABLE + 2, &available.to_le_bytes());
            self.next[queue] = ((descriptor + count) % SIZE, available);
        }
        room
    }

    /// Kicks a queue, and lets the device go on for as long as it puts work off, up to a limit.
    pub fn kick(&mut self, queue: usize) {
        self.call(|device, guest| device.kicked(queue, guest));
    }

    /// Tells the device whatever its own descriptors have to say.
    pub fn poll(&mut self) {
        let mut news: Vec<Ready> = Vec::new();
        self.poll.wait(&mut news, true).expect("an epoll");
        for ready in news {
            self.call(|device, guest| device.ready(ready, guest));
        }
    }

    /// Stops a queue as a reset of the driver does.
    pub fn reset(&mut self, queue: usize) {
        self.call(|device, guest| device.stopped(queue, true, guest));
    }

    fn call(&mut self, what: impl FnOnce(&mut D, &mut Guest<'_>)) {
        /// A guest that never stops must not stop a target: devices work in bounded pieces.
        const TURNS: usize = 16;
        let mut guest = Guest {
            memory: self.memory,
            poll: &self.poll,
            rings: &mut self.rings,
            put_off: &mut self.put_off,
        };
        what(&mut self.device, &mut guest);
        for _ in 0..TURNS {
            if !std::mem::take(guest.put_off) {
                return;
            }
            self.device.resumed(&mut guest);
        }
        *guest.put_off = false;
    }
}
