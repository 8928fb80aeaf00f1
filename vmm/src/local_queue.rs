//! One queue of a device that this process serves itself, on the host.

use std::io;
use std::sync::Arc;

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Queue, QueueT};
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
    pub(crate) fn take(&mut self) -> Option<Chain> {
        loop {
            if let Some(chain) = self.queue.pop_descriptor_chain(Arc::clone(&self.memory)) {
                return Some(chain);
            }
            // A ring the guest has broken has nothing in it.
            if !self
                .queue
                .enable_notification(&*self.memory)
                .unwrap_or(false)
            {
                return None;
            }
        }
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

/// Returns the stretches of guest memory that a request lets the device write.
pub(crate) fn writable(chain: Chain) -> impl Iterator<Item = Descriptor> {
    chain.writable()
}
