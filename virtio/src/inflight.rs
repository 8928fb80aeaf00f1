//! Which requests a daemon has taken and not returned, in memory that outlives it (vhost-user, "Inflight I/O tracking").
//!
//! A daemon may return requests in another order than it took them, so after its death the used ring alone does not say
//! which are left. The front end keeps the memory and gives it to the next daemon, which takes exactly those again.
//!
//! ```text
//! each queue   u64 features, u16 version, u16 descriptors, u16 last head, u16 used index, then for each head:
//!              u8 in flight, 5 bytes unused, u16 next head of a batch, u64 counter
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vhost::vhost_user::message::VhostUserInflight;
use vm_memory::{AtomicAccess, Bytes};

use crate::memory::{MemoryError, Shared};
use crate::ring::MAX_RING;

/// Bytes before the heads, and of each of them.
const HEADER: usize = 16;
const ENTRY: usize = 16;

/// Queues begin on a cache line of their own.
const ALIGNMENT: usize = 64;

/// Where the header's fields are.
const VERSION: usize = 8;
const DESCRIPTORS: usize = 10;
const LAST_HEAD: usize = 12;
const USED_INDEX: usize = 14;

/// Where an entry's fields are.
const IN_FLIGHT: usize = 0;
const COUNTER: usize = 8;

/// The layout above; 0 is memory that nobody has used.
const THIS_VERSION: u16 = 1;

/// The record of a whole device.
#[derive(Debug)]
pub(crate) struct Inflight {
    shared: Arc<Shared>,
    queues: usize,
    size: u16,
}

impl Inflight {
    /// Makes memory for `queues` of the largest size there is; behind a lock it could not get its length.
    pub(crate) fn make(queues: usize) -> io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("inflight", flags)?);
        file.set_len(bytes(queues, MAX_RING) as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(file)
    }

    /// Forgets what is in `file`, which [`Inflight::make`] made, and describes the part for `queues` of `size`.
    pub(crate) fn clear(
        file: &File,
        queues: u16,
        size: u16,
    ) -> Result<VhostUserInflight, MemoryError> {
        let zeroes = vec![0; bytes(usize::from(queues), size)];
        let length = zeroes.len() as u64;
        Shared::new(file, 0, length)?.write(&zeroes);
        Ok(VhostUserInflight::new(length, 0, queues, size))
    }

    /// Maps what the front end kept.
    pub(crate) fn map(described: &VhostUserInflight, file: &File) -> Result<Self, MemoryError> {
        let shared = Shared::new(file, described.mmap_offset, described.mmap_size)?;
        Ok(Self {
            shared: Arc::new(shared),
            queues: usize::from(described.num_queues),
            size: described.queue_size,
        })
    }

    /// Returns the record of `queue`, if there is one.
    pub(crate) fn record(&self, queue: usize) -> Option<Record> {
        let start = queue.checked_mul(stride(self.size))?;
        let fits = start.checked_add(stride(self.size))? <= self.shared.bytes();
        (fits && queue < self.queues).then(|| Record {
            shared: Arc::clone(&self.shared),
            start,
            size: self.size,
            counter: 0,
            again: VecDeque::new(),
            taken: Vec::new(),
        })
    }
}

/// The record of one queue, kept by its ring.
#[derive(Debug)]
pub(crate) struct Record {
    shared: Arc<Shared>,
    start: usize,
    size: u16,
    counter: u64,
    /// Heads that a daemon before this one took and did not return, in the order in which it took them.
    again: VecDeque<u16>,
    /// Heads that this daemon has now, in the order in which it took them, and whether each was taken again.
    taken: Vec<(u16, bool)>,
}

impl Record {
    /// Goes on with a queue of `size` whose used index is `used`; returns which entry of the available ring comes next,
    /// or nothing for a queue that nobody has served yet.
    pub(crate) fn begin(&mut self, size: u16, used: u16) -> Option<u16> {
        if size > self.size {
            // It has no room for this queue; the front end asked for a smaller one.
            return None;
        }
        let is_old = self.get::<u16>(VERSION) == THIS_VERSION;
        if !is_old || self.get::<u16>(DESCRIPTORS) != size {
            for head in 0..self.size {
                self.set(entry(head) + IN_FLIGHT, 0_u8);
            }
            self.set(USED_INDEX, used);
            self.set(DESCRIPTORS, size);
            self.set(VERSION, THIS_VERSION);
            return None;
        }
        if self.get::<u16>(USED_INDEX) != used {
            // The last request had been returned, which was not noted any more.
            let last = self.get::<u16>(LAST_HEAD);
            if last < size {
                self.set(entry(last) + IN_FLIGHT, 0_u8);
            }
            self.set(USED_INDEX, used);
        }
        let mut left: Vec<(u64, u16)> = (0..size)
            .filter(|head| self.get::<u8>(entry(*head) + IN_FLIGHT) != 0)
            .map(|head| (self.get::<u64>(entry(head) + COUNTER), head))
            .collect();
        left.sort_unstable();
        self.counter = left
            .last()
            .map_or(0, |(counter, _)| counter.wrapping_add(1));
        self.again = left.iter().map(|(_, head)| *head).collect();
        // A queue has at most its size in flight, so this fits.
        let count = u16::try_from(left.len()).unwrap_or(u16::MAX);
        Some(used.wrapping_add(count))
    }

    /// Returns the head to take again, if there is one.
    pub(crate) fn next_again(&mut self) -> Option<u16> {
        self.again.pop_front()
    }

    /// Returns whether there are heads to take again.
    pub(crate) fn has_more(&self) -> bool {
        !self.again.is_empty()
    }

    /// Notes that `head` was taken, `again` or for the first time.
    pub(crate) fn take(&mut self, head: u16, again: bool) {
        self.taken.push((head, again));
        if head < self.size && !again {
            self.set(entry(head) + COUNTER, self.counter);
            self.set(entry(head) + IN_FLIGHT, 1_u8);
            self.counter = self.counter.wrapping_add(1);
        }
    }

    /// Notes that the request taken last was put back; returns whether it had been taken again.
    pub(crate) fn put_back(&mut self) -> bool {
        match self.taken.pop() {
            Some((head, true)) => {
                self.again.push_front(head);
                true
            }
            Some((head, false)) => {
                if head < self.size {
                    self.set(entry(head) + IN_FLIGHT, 0_u8);
                }
                false
            }
            None => false,
        }
    }

    /// Notes that `head` is about to be returned.
    pub(crate) fn returning(&mut self, head: u16) {
        self.set(LAST_HEAD, head);
    }

    /// Notes that `head` was returned, which made the used index `used`.
    pub(crate) fn returned(&mut self, head: u16, used: u16) {
        if head < self.size {
            self.set(entry(head) + IN_FLIGHT, 0_u8);
        }
        self.set(USED_INDEX, used);
        if let Some(place) = self.taken.iter().position(|(taken, _)| *taken == head) {
            self.taken.remove(place);
        }
    }

    /// Reads a field. The record was mapped whole, so it is there.
    fn get<T: AtomicAccess>(&self, offset: usize) -> T {
        let at = self.start + offset;
        let value = self.shared.slice().load(at, Ordering::Acquire);
        value.expect("a field of a record lies in it")
    }

    /// Writes a field, after everything that was written before.
    fn set<T: AtomicAccess>(&mut self, offset: usize, value: T) {
        let at = self.start + offset;
        let stored = self.shared.slice().store(value, at, Ordering::Release);
        stored.expect("a field of a record lies in it");
    }
}

fn entry(head: u16) -> usize {
    HEADER + ENTRY * usize::from(head)
}

fn stride(size: u16) -> usize {
    entry(size).next_multiple_of(ALIGNMENT)
}

fn bytes(queues: usize, size: u16) -> usize {
    queues * stride(size)
}
