//! One virtqueue with its two doorbells: the driver's kick and the device's call.
//!
//! A ring whose contents break the rules is stopped and reported to the front end; nothing it holds is believed
//! any more until the driver sets it up again.

use std::fs::File;
use std::sync::atomic::Ordering;

use virtio_queue::{Error as QueueError, Queue, QueueT};
use vm_memory::GuestAddress;

use crate::chain::{Chain, Table};
use crate::inflight::Record;
use crate::limited;
use crate::memory::Memory;

/// The largest ring this side offers: what QEMU and our own engine use at most.
pub const MAX_RING: u16 = 1024;

/// What an eventfd is told: one more event.
const ONE: [u8; 8] = 1_u64.to_ne_bytes();

/// A virtqueue.
#[derive(Debug)]
pub struct Ring {
    queue: Queue,
    kick: Option<File>,
    call: Option<File>,
    error: Option<File>,
    enabled: bool,
    state: State,
    /// What is in flight, if the front end keeps that.
    record: Option<Record>,
}

/// What the front end and the ring's own contents allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The front end has not started it, or has stopped it.
    Stopped,
    /// It has its addresses and doorbells.
    Started,
    /// The driver broke the rules.
    Broken,
}

impl Ring {
    pub(crate) fn new() -> Self {
        let queue = Queue::new(MAX_RING).expect("MAX_RING is a power of two below 32769");
        Self {
            queue,
            kick: None,
            call: None,
            error: None,
            enabled: false,
            state: State::Stopped,
            record: None,
        }
    }

    /// Returns how many requests the ring holds at most.
    #[must_use]
    pub fn size(&self) -> usize {
        usize::from(self.queue.size())
    }

    /// Returns the next request, if there is one.
    pub fn pop<'m>(&mut self, memory: &'m Memory) -> Option<Chain<'m>> {
        if self.state == State::Broken {
            return None;
        }
        // Linux' drivers hand in direct chains up to the queue's size, and indirect ones up to the same.
        let table = Table {
            start: GuestAddress(self.queue.desc_table()),
            descriptors: self.queue.size(),
        };
        let map = memory.map();
        let unfinished = self.record.as_mut().and_then(Record::next_again);
        let head = match unfinished {
            Some(head) => head,
            None => match virtio_queue::QueueOwnedT::iter(&mut self.queue, map) {
                Ok(mut iterator) => iterator.next()?.head_index(),
                Err(error) => return self.fail(&error),
            },
        };
        let Some(chain) = Chain::collect(head, table, map) else {
            return self.fail(&QueueError::InvalidChain);
        };
        if let Some(record) = &mut self.record {
            record.take(head, unfinished.is_some());
        }
        Some(chain)
    }

    /// Puts the request popped last back, to be popped again; may be done for several, the last one first.
    pub fn unpop(&mut self) {
        if !self.record.as_mut().is_some_and(Record::put_back) {
            virtio_queue::QueueOwnedT::go_to_previous_position(&mut self.queue);
        }
    }

    /// Returns a request to the driver, with `written` bytes of answer in it.
    pub fn push(&mut self, memory: &Memory, head: u16, written: u32) {
        if let Some(record) = &mut self.record {
            record.returning(head);
        }
        if let Err(error) = self.queue.add_used(memory.map(), head, written) {
            self.fail::<()>(&error);
        } else if let Some(record) = &mut self.record {
            record.returned(head, self.queue.next_used());
        }
    }

    /// Asks for no kicks while the ring is being emptied anyway.
    pub fn mute(&mut self, memory: &Memory) {
        if let Err(error) = self.queue.disable_notification(memory.map()) {
            self.fail::<()>(&error);
        }
    }

    /// Asks for a kick with the next request; returns true if one has come in already.
    pub fn listen(&mut self, memory: &Memory) -> bool {
        match self.queue.enable_notification(memory.map()) {
            Ok(more) => {
                let more = more || self.record.as_ref().is_some_and(Record::has_more);
                more && self.state != State::Broken
            }
            Err(error) => {
                self.fail::<()>(&error);
                false
            }
        }
    }

    /// Interrupts the guest if it wants to know about the requests returned since the last time.
    pub fn notify(&mut self, memory: &Memory) {
        match self.queue.needs_notification(memory.map()) {
            Ok(true) => ring_bell(self.call.as_ref()),
            Ok(false) => {}
            Err(error) => {
                self.fail::<()>(&error);
            }
        }
    }

    /// Returns whether requests may be taken.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.enabled && self.state == State::Started
    }

    /// Stops believing the ring and tells the front end.
    fn fail<T>(&mut self, error: &QueueError) -> Option<T> {
        limited!(
            warn,
            "a ring was stopped because its driver broke the rules: {error}"
        );
        self.state = State::Broken;
        ring_bell(self.error.as_ref());
        None
    }
}

/// What the front end sets.
impl Ring {
    pub(crate) fn set_size(&mut self, size: u32) -> bool {
        let size = u16::try_from(size)
            .ok()
            .filter(|&size| size > 0 && size <= MAX_RING);
        size.is_some_and(|size| self.queue.try_set_size(size).is_ok())
    }

    pub(crate) fn set_addresses(
        &mut self,
        descriptors: GuestAddress,
        available: GuestAddress,
        used: GuestAddress,
    ) -> bool {
        self.queue.try_set_desc_table_address(descriptors).is_ok()
            && self.queue.try_set_avail_ring_address(available).is_ok()
            && self.queue.try_set_used_ring_address(used).is_ok()
    }

    pub(crate) fn set_base(&mut self, base: u16) {
        self.queue.set_next_avail(base);
        self.queue.set_next_used(base);
    }

    pub(crate) fn base(&self) -> u16 {
        self.queue.next_avail()
    }

    pub(crate) fn set_record(&mut self, record: Option<Record>) {
        self.record = record;
    }

    pub(crate) fn set_event_index(&mut self, enabled: bool) {
        self.queue.set_event_idx(enabled);
    }

    pub(crate) fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    pub(crate) fn set_call(&mut self, call: Option<File>) {
        self.call = call;
    }

    pub(crate) fn set_error(&mut self, error: Option<File>) {
        self.error = error;
    }

    /// Takes the kick and returns the one it replaces.
    pub(crate) fn set_kick(&mut self, kick: Option<File>) -> Option<File> {
        std::mem::replace(&mut self.kick, kick)
    }

    /// Starts a ring that has its size, addresses and base; returns false if they make no ring.
    pub(crate) fn start(&mut self, memory: &Memory) -> bool {
        self.queue.set_ready(true);
        if !self.queue.is_valid(memory.map()) {
            return false;
        }
        // After a daemon's restart the device's own place in the used ring is only known there.
        if let Ok(used) = self.queue.used_idx(memory.map(), Ordering::Acquire) {
            self.queue.set_next_used(used.0);
            let size = self.queue.size();
            let record = self.record.as_mut();
            if let Some(next) = record.and_then(|record| record.begin(size, used.0)) {
                self.queue.set_next_avail(next);
            }
        }
        self.state = State::Started;
        true
    }

    /// Stops the ring; its base is what a later start goes on from.
    pub(crate) fn stop(&mut self) {
        self.state = State::Stopped;
        self.queue.set_ready(false);
        self.call = None;
    }

    pub(crate) fn is_started(&self) -> bool {
        self.state != State::Stopped
    }
}

/// Adds one to an eventfd, if there is one.
fn ring_bell(bell: Option<&File>) {
    use std::io::Write;

    let Some(mut bell) = bell else { return };
    // The only failures are a counter at its limit, which still counts as rung, and a front end that gave us
    // something else than an eventfd, which is its own loss.
    let _ = bell.write(&ONE);
}

#[cfg(test)]
mod tests;
