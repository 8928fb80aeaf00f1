//! What a device is to the loop that carries it.

use crate::memory::Memory;
use crate::poll::{Poll, Ready};
use crate::ring::Ring;

/// A virtio device.
///
/// Everything happens in one thread: no call is made before the one before it has returned.
pub trait Device {
    /// Returns how many queues the device has.
    fn queues(&self) -> usize;

    /// Returns the features of this type of device; the loop adds those of the transport.
    fn features(&self) -> u64;

    /// Takes the features that the driver has agreed to, before any queue runs.
    fn negotiated(&mut self, _features: u64) {}

    /// Returns the configuration space as it is now: the front end asks again after a change.
    fn config(&mut self) -> &[u8] {
        &[]
    }

    /// Adds the device's own descriptors to `poll`, with tokens below [`crate::Guest::TOKENS`].
    ///
    /// # Errors
    /// A descriptor cannot be waited for.
    fn start(&mut self, _poll: &Poll) -> std::io::Result<()> {
        Ok(())
    }

    /// Handles what the driver has put into a queue; also called when the queue starts.
    fn kicked(&mut self, queue: usize, guest: &mut Guest<'_>);

    /// Handles news of one of the device's own descriptors.
    fn ready(&mut self, _news: Ready, _guest: &mut Guest<'_>) {}

    /// Goes on with what was put off by [`Guest::put_off`], after everybody else had a turn.
    fn resumed(&mut self, _guest: &mut Guest<'_>) {}

    /// Finishes what is under way in a queue that is about to stop.
    ///
    /// `reset` tells a driver that starts afresh from one that was only paused: it is known when the queue
    /// starts again, and then this is called before [`Device::kicked`].
    fn stopped(&mut self, _queue: usize, _reset: bool, _guest: &mut Guest<'_>) {}
}

/// The guest as a device reaches it.
#[derive(Debug)]
pub struct Guest<'a> {
    /// Its memory.
    pub memory: &'a Memory,
    /// Where the device adds descriptors of its own.
    pub poll: &'a Poll,
    pub(crate) rings: &'a mut [Ring],
    pub(crate) put_off: &'a mut bool,
}

impl Guest<'_> {
    /// Tokens from here on belong to the loop.
    pub const TOKENS: u64 = 1 << 63;

    /// Returns a queue if it runs.
    pub fn ring(&mut self, queue: usize) -> Option<&mut Ring> {
        self.rings.get_mut(queue).filter(|ring| ring.is_running())
    }

    /// Asks for [`Device::resumed`] once the front end, the driver and other descriptors have been looked at.
    ///
    /// A device does so after a bounded piece of work, because neither guest nor host need ever pause.
    pub fn put_off(&mut self) {
        *self.put_off = true;
    }
}
