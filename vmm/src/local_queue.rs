//! One queue of a device that this process serves itself, on the host.

use std::io;
use std::sync::Arc;

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use crate::memory::{GuestMemory, Memory};
use crate::virtio_device::{F_EVENT_IDX, ReadyQueue};

/// A request as the guest put it in the queue.
pub(crate) type Chain = DescriptorChain<Arc<GuestMemory>>;

/// The queue with its two event descriptors.
pub(crate) struct LocalQueue {
    index: u16,
    queue: Queue,
    memory: Arc<GuestMemory>,
    kick: EventFd,
    call: EventFd,
    broken: bool,
}

impl LocalQueue {
    /// Takes a queue the guest set up.
    ///
    /// # Errors
    /// Its rings are not where rings can be.
    pub(crate) fn new(ready: ReadyQueue, features: u64, memory: &Memory) -> io::Result<Self> {
        let mut queue = Queue::new(ready.size).map_err(io::Error::other)?;
        queue.set_size(ready.size);
        let address = GuestAddress;
        queue
            .try_set_desc_table_address(address(ready.descriptors))
            .map_err(io::Error::other)?;
        queue
            .try_set_avail_ring_address(address(ready.available))
            .map_err(io::Error::other)?;
        queue
            .try_set_used_ring_address(address(ready.used))
            .map_err(io::Error::other)?;
        queue.set_event_idx(features & F_EVENT_IDX != 0);
        queue.set_next_avail(ready.next);
        queue.set_next_used(ready.next);
        queue.set_ready(true);
        let memory = Arc::clone(memory.guest());
        Ok(Self {
            index: ready.index,
            queue,
            memory,
            kick: ready.kick,
            call: ready.call,
            broken: false,
        })
    }

    /// Returns which queue this is and the next entry that it takes.
    pub(crate) fn position(&self) -> (u16, u16) {
        (self.index, self.queue.next_avail())
    }

    /// Returns what the guest kicks.
    pub(crate) fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// Returns the next request; without one, the guest will kick when there is.
    ///
    /// Nothing comes out of a ring that broke the rules, until the guest resets the device.
    pub(crate) fn take(&mut self) -> Option<Chain> {
        while !self.broken {
            let Ok(mut chains) = self.queue.iter(Arc::clone(&self.memory)) else {
                self.broken = true;
                break;
            };
            if let Some(chain) = chains.next() {
                self.broken = !is_whole(&chain);
                return (!self.broken).then_some(chain);
            }
            // What came in after the last look has no kick.
            if !self
                .queue
                .enable_notification(&*self.memory)
                .unwrap_or(false)
            {
                return None;
            }
        }
        tracing::debug!(queue = self.index, "the guest broke a queue");
        None
    }

    /// Gives a request back with `written` bytes in it, and interrupts the guest if it wants that.
    pub(crate) fn finish(&mut self, head: u16, written: u32) {
        let used = self.queue.add_used(&*self.memory, head, written);
        let wanted = used.and_then(|()| self.queue.needs_notification(&*self.memory));
        match wanted {
            Ok(true) => {
                let _full_counter_is_a_call_too = self.call.write(1);
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the guest broke a queue"),
        }
    }

    /// Returns the memory the queue is in.
    pub(crate) fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }
}

/// Returns whether a chain ends where its last descriptor says so. The iterator ends in silence at whatever it finds wrong: a
/// loop, an index or a table that is not there.
fn is_whole(chain: &Chain) -> bool {
    chain
        .clone()
        .last()
        .is_some_and(|descriptor| !descriptor.has_next())
}

/// Returns the stretches of guest memory that a request lets the device write.
pub(crate) fn writable(chain: Chain) -> impl Iterator<Item = Descriptor> {
    chain.writable()
}
