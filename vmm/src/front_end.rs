//! A virtio device whose work a vhost-user daemon does: the front end's half of the protocol, on the host.
//!
//! One generic front end serves every kind of device: it passes on features, rings, notification and interrupt
//! descriptors, and the daemon's answers about configuration. What differs between kinds is in [`shape`].
//! A daemon that goes away takes nothing with it: [`FrontEnd::reattach`] gives its successor the same rings.

pub(crate) mod session;
pub(crate) mod shape;

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use spec::vm::Device;
use thiserror::Error;

use self::session::Session;
use self::shape::Shape;
use crate::local_queue::LocalQueue;
use crate::memory::Memory;
use crate::pci::bus::lock;
use crate::virtio_device::{Activation, ReadyQueue, VirtioDevice};

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (virtio 1.3 §5.10.6.7).
const TRANSPORT_RESET: [u8; 4] = [0; 4];

/// Why a daemon could not be attached.
#[derive(Debug, Error)]
pub(crate) enum AttachError {
    #[error("the daemon of device {device} failed while it was asked to {act}")]
    Ask {
        device: String,
        act: &'static str,
        #[source]
        source: vhost::Error,
    },
    #[error("the daemon of device {device} cannot be reached")]
    Socket {
        device: String,
        #[source]
        source: io::Error,
    },
    #[error("the daemon of device {device} has {has} queues, the specification says {wants}")]
    TooFewQueues {
        device: String,
        has: u64,
        wants: usize,
    },
    #[error("the daemon of device {device} lacks features that the guest already uses: {lacks:#x}")]
    LostFeatures { device: String, lacks: u64 },
    #[error("device {device}: {problem}")]
    Unsupported {
        device: String,
        problem: &'static str,
    },
}

/// The device, with its daemon.
pub(crate) struct FrontEnd {
    name: String,
    shape: Shape,
    features: u64,
    config: Vec<u8>,
    memory: Memory,
    session: Session,
    /// What the guest set up, while the device works; a new daemon gets it again.
    active: Option<Activation>,
}

impl FrontEnd {
    /// Greets the daemon on `socket` and learns what it offers.
    ///
    /// # Errors
    /// The daemon does not answer as a vhost-user back end of this kind, or is gone.
    pub(crate) fn attach(
        device: &Device,
        socket: UnixStream,
        memory: Memory,
    ) -> Result<Self, AttachError> {
        let shape = Shape::of(device)?;
        let mut session = Session::open(&device.name, socket, shape.daemon_queues)?;
        let features = shape.offer(session.features());
        let config = session.read_config(&shape)?;
        Ok(Self {
            name: device.name.clone(),
            features,
            config,
            memory,
            session,
            shape,
            active: None,
        })
    }

    /// Returns what to watch for the daemon's messages and its end.
    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Goes on with a new daemon on `socket`, which gets the rings where the old one left them.
    ///
    /// # Errors
    /// The new daemon cannot replace the old one.
    pub(crate) fn reattach(&mut self, socket: UnixStream) -> Result<(), AttachError> {
        let mut session = Session::open(&self.name, socket, self.shape.daemon_queues)?;
        let agreed = self.active.as_ref().map_or(0, |active| active.features);
        let lacks = self.shape.ask(agreed) & !session.features();
        if lacks != 0 {
            return Err(AttachError::LostFeatures {
                device: self.name.clone(),
                lacks,
            });
        }
        self.config = session.read_config(&self.shape)?;
        if let Some(active) = &mut self.active {
            for queue in &mut active.queues {
                queue.next = session::used_index(&self.memory, queue);
            }
            session.take_over_inflight(&mut self.session);
            session.start(active, &self.shape)?;
        }
        self.session = session;
        Ok(())
    }

    /// Tells the guest that its connections are gone, as they are when the daemon is another than before.
    pub(crate) fn reset_streams(&mut self) {
        let event_queue = self.shape.event_queue;
        let Some(active) = self.active.as_ref() else {
            return;
        };
        let ready = active
            .queues
            .iter()
            .find(|queue| Some(queue.index) == event_queue);
        if let Some(ready) = ready
            && let Err(error) = tell_reset(ready, active)
        {
            tracing::warn!(device = self.name, %error, "the guest does not know that its connections are gone");
        }
    }

    /// Asks the daemon for its configuration again.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub(crate) fn refresh_config(&mut self) -> Result<(), AttachError> {
        self.config = self.session.read_config(&self.shape)?;
        Ok(())
    }
}

/// Puts the event that connections are gone into the guest's event queue (virtio 1.3 §5.10.6.7).
fn tell_reset(ready: &ReadyQueue, active: &Activation) -> io::Result<()> {
    let mut queue = LocalQueue::new(ready.try_clone()?, active.features, &active.memory)?;
    let chain = queue
        .take()
        .ok_or_else(|| io::Error::other("it gave no room for events"))?;
    let head = chain.head_index();
    let memory = Arc::clone(queue.memory());
    let mut room = chain.writer(&memory).map_err(io::Error::other)?;
    room.write_all(&TRANSPORT_RESET)?;
    queue.finish(head, u32::try_from(TRANSPORT_RESET.len()).expect("four"));
    Ok(())
}

/// The transport and the thread that watches the daemons share a front end. Whoever locks both locks the
/// transport first.
impl VirtioDevice for Arc<Mutex<FrontEnd>> {
    fn kind(&self) -> u16 {
        lock(self).shape.kind
    }

    fn queue_sizes(&self) -> Vec<u16> {
        lock(self).shape.queue_sizes.clone()
    }

    fn features(&self) -> u64 {
        lock(self).features
    }

    fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        lock(self).read_config(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        lock(self).write_config(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        lock(self).activate(activation)
    }

    fn pause(&mut self) -> io::Result<Vec<(u16, u16)>> {
        lock(self).pause()
    }

    fn reset(&mut self) {
        lock(self).reset();
    }
}

impl FrontEnd {
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let from = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.config.get(offset..));
        for (to, from) in data.iter_mut().zip(from.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let Ok(start) = usize::try_from(offset) else {
            return;
        };
        let inside = start
            .checked_add(data.len())
            .is_some_and(|end| end <= self.config.len());
        if !inside || !self.shape.config_is_daemons {
            return;
        }
        match self.session.write_config(start, data) {
            Ok(()) => self.config[start..start + data.len()].copy_from_slice(data),
            Err(error) => {
                tracing::warn!(device = self.name, %error, "cannot pass configuration on");
            }
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let started = self.session.start(&activation, &self.shape);
        self.active = Some(activation);
        started.map_err(io::Error::other)
    }

    fn pause(&mut self) -> io::Result<Vec<(u16, u16)>> {
        let Some(active) = self.active.take() else {
            return Ok(Vec::new());
        };
        let stopped = self.session.pause(&active, &self.shape);
        if stopped.is_err() {
            // The daemon is gone; its successor gets what it had.
            self.active = Some(active);
        }
        stopped.map_err(io::Error::other)
    }

    fn reset(&mut self) {
        if let Some(active) = self.active.take() {
            self.session.stop(&active, &self.shape);
        }
    }
}

#[cfg(test)]
mod tests;
