//! One connection to one daemon: the vhost-user requests in their order, on the engine's side.

use std::fs::File;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use vhost::vhost_user::{
    Frontend, FrontendReqHandler, HandlerResult, VhostUserFrontend as _,
    VhostUserFrontendReqHandler,
};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};

use super::AttachError;
use super::shape::Shape;
use crate::event::channel;
use crate::memory::Memory;
use crate::virtio_device::{Activation, ReadyQueue};

/// A daemon answers within microseconds; one that does not is dead, and a vCPU may be waiting.
const PATIENCE: Duration = Duration::from_secs(5);

const PROTOCOL: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// What this front end makes use of.
const WANTED: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::BACKEND_REQ)
    .union(VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    .union(VhostUserProtocolFeatures::RESET_DEVICE);

/// The daemon's requests to us; it has one that matters.
#[derive(Default)]
struct DaemonRequests {
    config_changed: AtomicBool,
}

impl VhostUserFrontendReqHandler for DaemonRequests {
    fn handle_config_change(&self) -> HandlerResult<u64> {
        self.config_changed.store(true, Ordering::Release);
        Ok(0)
    }
}

/// The connection.
pub(crate) struct Session {
    device: String,
    /// The same socket as `front`'s, to see when the daemon closes it.
    socket: UnixStream,
    front: Frontend,
    features: u64,
    protocol: VhostUserProtocolFeatures,
    requests: Option<(FrontendReqHandler<DaemonRequests>, Arc<DaemonRequests>)>,
    inflight: Option<(VhostUserInflight, File)>,
    has_memory: bool,
}

impl Session {
    /// Greets the daemon and agrees on the protocol.
    pub(super) fn open(
        device: &str,
        socket: UnixStream,
        queues: usize,
    ) -> Result<Self, AttachError> {
        let socket_error = |source| AttachError::Socket {
            device: device.to_owned(),
            source,
        };
        let watched = socket.try_clone().map_err(socket_error)?;
        let front = Frontend::from_stream(socket, queues as u64);
        let mut session = Self {
            device: device.to_owned(),
            socket: watched,
            front,
            features: 0,
            protocol: VhostUserProtocolFeatures::empty(),
            requests: None,
            inflight: None,
            has_memory: false,
        };
        session.greet(queues)?;
        Ok(session)
    }

    fn greet(&mut self, queues: usize) -> Result<(), AttachError> {
        let _deadline = Deadline::of(&self.socket);
        let ask = asking(&self.device);
        self.features = self
            .front
            .get_features()
            .map_err(ask("tell its features"))?;
        self.front.set_owner().map_err(ask("accept its owner"))?;
        if self.features & PROTOCOL == 0 {
            return Ok(());
        }
        let offered = self
            .front
            .get_protocol_features()
            .map_err(ask("tell its protocol"))?;
        self.protocol = offered & WANTED;
        self.front
            .set_protocol_features(self.protocol)
            .map_err(ask("agree on a protocol"))?;
        if self.has(VhostUserProtocolFeatures::REPLY_ACK) {
            self.front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        if self.has(VhostUserProtocolFeatures::MQ) {
            let has = self.front.get_queue_num().map_err(ask("tell its queues"))?;
            if has < queues as u64 {
                let device = self.device.clone();
                return Err(AttachError::TooFewQueues {
                    device,
                    has,
                    wants: queues,
                });
            }
        }
        if self.has(VhostUserProtocolFeatures::BACKEND_REQ) {
            self.open_request_channel()?;
        }
        Ok(())
    }

    fn open_request_channel(&mut self) -> Result<(), AttachError> {
        let ask = asking(&self.device);
        let requests = Arc::new(DaemonRequests::default());
        let mut handler = FrontendReqHandler::new(Arc::clone(&requests)).map_err(|error| {
            ask("take a request channel")(vhost::Error::VhostUserProtocol(error))
        })?;
        handler.set_reply_ack_flag(self.has(VhostUserProtocolFeatures::REPLY_ACK));
        let channel = Number(handler.get_tx_raw_fd());
        self.front
            .set_backend_request_fd(&channel)
            .map_err(ask("take a request channel"))?;
        self.requests = Some((handler, requests));
        Ok(())
    }

    /// Returns the feature bits the daemon offers.
    pub(super) fn features(&self) -> u64 {
        self.features
    }

    /// Returns the device's configuration.
    pub(super) fn read_config(&mut self, shape: &Shape) -> Result<Vec<u8>, AttachError> {
        let mut config = vec![0; usize::try_from(shape.config_bytes).expect("a few bytes")];
        if shape.config_is_daemons && self.has(VhostUserProtocolFeatures::CONFIG) {
            let _deadline = Deadline::of(&self.socket);
            let flags = VhostUserConfigFlags::WRITABLE;
            let answer = self.front.get_config(0, shape.config_bytes, flags, &config);
            let (_, payload) = answer.map_err(asking(&self.device)("tell its configuration"))?;
            config.copy_from_slice(&payload);
        }
        shape.overlay(&mut config);
        Ok(config)
    }

    /// Passes the guest's write to configuration on.
    pub(super) fn write_config(&mut self, offset: usize, data: &[u8]) -> Result<(), AttachError> {
        let _deadline = Deadline::of(&self.socket);
        let offset = u32::try_from(offset).expect("configuration is a few bytes");
        let written = self
            .front
            .set_config(offset, VhostUserConfigFlags::WRITABLE, data);
        written.map_err(asking(&self.device)("take configuration"))
    }

    /// Gives the daemon memory and rings, and lets it work.
    pub(super) fn start(
        &mut self,
        activation: &Activation,
        shape: &Shape,
    ) -> Result<(), AttachError> {
        let _deadline = Deadline::of(&self.socket);
        let ask = asking(&self.device);
        let features = shape.ask(activation.features) | (self.features & PROTOCOL);
        self.front
            .set_features(features)
            .map_err(ask("accept features"))?;
        if !self.has_memory {
            let table = memory_table(&activation.memory).map_err(ask("map guest memory"))?;
            self.front
                .set_mem_table(&table)
                .map_err(ask("map guest memory"))?;
            self.has_memory = true;
        }
        self.share_inflight(activation, shape)
            .map_err(ask("record requests in flight"))?;
        for queue in served(activation, shape) {
            self.start_queue(queue, &activation.memory)
                .map_err(ask("take a queue"))?;
        }
        Ok(())
    }

    fn start_queue(&mut self, queue: &ReadyQueue, memory: &Memory) -> Result<(), vhost::Error> {
        let index = usize::from(queue.index);
        let rings = VringConfigData {
            queue_max_size: queue.size,
            queue_size: queue.size,
            flags: 0,
            desc_table_addr: host_address(memory, queue.descriptors)?,
            used_ring_addr: host_address(memory, queue.used)?,
            avail_ring_addr: host_address(memory, queue.available)?,
            log_addr: None,
        };
        self.front.set_vring_num(index, queue.size)?;
        self.front.set_vring_addr(index, &rings)?;
        self.front.set_vring_base(index, queue.next)?;
        self.front.set_vring_call(index, &queue.call)?;
        self.front.set_vring_kick(index, &queue.kick)?;
        if self.features & PROTOCOL != 0 {
            self.front.set_vring_enable(index, true)?;
        }
        // What the guest put there before the daemon listened has no kick of its own any more.
        let _full_counter_is_a_kick_too = queue.kick.write(1);
        Ok(())
    }

    /// Stops the daemon's work without its forgetting it; returns the next entry that each queue takes.
    pub(super) fn pause(
        &mut self,
        activation: &Activation,
        shape: &Shape,
    ) -> Result<Vec<(u16, u16)>, AttachError> {
        let _deadline = Deadline::of(&self.socket);
        let mut positions = Vec::new();
        for queue in &activation.queues {
            let next = if usize::from(queue.index) < shape.daemon_queues {
                let base = self.front.get_vring_base(usize::from(queue.index));
                let base = base.map_err(asking(&self.device)("stop a queue"))?;
                u16::try_from(base).unwrap_or_else(|_| used_index(&activation.memory, queue))
            } else {
                used_index(&activation.memory, queue)
            };
            positions.push((queue.index, next));
        }
        Ok(positions)
    }

    /// Stops the daemon's work; a daemon that is gone has stopped.
    pub(super) fn stop(&mut self, activation: &Activation, shape: &Shape) {
        let _deadline = Deadline::of(&self.socket);
        for queue in served(activation, shape) {
            let index = usize::from(queue.index);
            if self.features & PROTOCOL != 0 {
                let _gone_is_stopped_too = self.front.set_vring_enable(index, false);
            }
            // Asking where a ring stands is how the protocol stops it.
            let _gone_is_stopped_too = self.front.get_vring_base(index);
        }
        if self.has(VhostUserProtocolFeatures::RESET_DEVICE) {
            let _gone_is_reset_too = self.front.reset_device();
        }
        self.inflight = None;
    }

    /// Keeps the record of requests the old daemon had taken and not finished.
    pub(super) fn take_over_inflight(&mut self, old: &mut Self) {
        self.inflight = old.inflight.take();
    }

    /// Lets the daemon record requests in flight in memory that outlives it.
    fn share_inflight(
        &mut self,
        activation: &Activation,
        shape: &Shape,
    ) -> Result<(), vhost::Error> {
        if !self.has(VhostUserProtocolFeatures::INFLIGHT_SHMFD) {
            return Ok(());
        }
        if self.inflight.is_none() {
            let largest = activation
                .queues
                .iter()
                .map(|queue| queue.size)
                .max()
                .unwrap_or(0);
            let wanted = VhostUserInflight {
                num_queues: u16::try_from(shape.daemon_queues).expect("few queues"),
                queue_size: largest,
                ..VhostUserInflight::default()
            };
            self.inflight = Some(self.front.get_inflight_fd(&wanted)?);
        }
        match &self.inflight {
            Some((record, file)) => self.front.set_inflight_fd(record, file.as_raw_fd()),
            None => Ok(()),
        }
    }

    /// Returns the number of the socket, to watch for its end.
    pub(crate) fn socket(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Returns the number of the descriptor on which the daemon's own requests come, to watch it.
    pub(crate) fn request_channel(&self) -> Option<RawFd> {
        self.requests
            .as_ref()
            .map(|(handler, _)| handler.as_raw_fd())
    }

    /// Answers one request of the daemon. Returns whether it says that its configuration changed.
    ///
    /// # Errors
    /// The daemon is gone or talks nonsense.
    pub(crate) fn answer_request(&mut self) -> Result<bool, AttachError> {
        let Some((handler, requests)) = &mut self.requests else {
            return Ok(false);
        };
        // A daemon that sends half a message must not hold up whoever watches all of them.
        let channel = channel(handler).try_clone_to_owned().map(UnixStream::from);
        let _deadline = channel.ok().as_ref().and_then(Deadline::of);
        let answered = handler
            .handle_request()
            .map_err(vhost::Error::VhostUserProtocol);
        answered.map_err(asking(&self.device)("ask for something"))?;
        Ok(requests.config_changed.swap(false, Ordering::AcqRel))
    }

    fn has(&self, feature: VhostUserProtocolFeatures) -> bool {
        self.protocol.contains(feature)
    }
}

/// Returns how many entries the daemon has finished, which is where its successor starts.
pub(super) fn used_index(memory: &Memory, queue: &ReadyQueue) -> u16 {
    let index = GuestAddress(queue.used.saturating_add(2));
    memory
        .guest()
        .read_obj::<u16>(index)
        .map_or(queue.next, u16::from_le)
}

/// Closes a connection whose other end does not answer in time, which ends every wait on it.
///
/// The vhost crate waits for an answer for ever, socket timeouts or not, so somebody else must hold the clock.
struct Deadline {
    _kept: Sender<()>,
}

impl Deadline {
    /// Starts the clock; it stops when the deadline is dropped. Without a thread for it there is no deadline.
    fn of(socket: &UnixStream) -> Option<Self> {
        let socket = socket.try_clone().ok()?;
        let (kept, dropped) = mpsc::channel::<()>();
        let clock = std::thread::Builder::new().name("deadline".to_owned());
        let watch = move || {
            if dropped.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _closed_already = socket.shutdown(Shutdown::Both);
            }
        };
        clock.spawn(watch).ok().map(|_| Self { _kept: kept })
    }
}

/// A descriptor number for an interface that takes nothing better.
struct Number(RawFd);

impl AsRawFd for Number {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

fn served<'a>(
    activation: &'a Activation,
    shape: &Shape,
) -> impl Iterator<Item = &'a ReadyQueue> + use<'a> {
    let daemons = shape.daemon_queues;
    activation
        .queues
        .iter()
        .filter(move |queue| usize::from(queue.index) < daemons)
}

fn memory_table(memory: &Memory) -> Result<Vec<VhostUserMemoryRegionInfo>, vhost::Error> {
    memory
        .guest()
        .iter()
        .map(VhostUserMemoryRegionInfo::from_guest_region)
        .collect()
}

fn host_address(memory: &Memory, guest: u64) -> Result<u64, vhost::Error> {
    let address = memory.guest().get_host_address(GuestAddress(guest));
    address
        .map(|pointer| pointer as u64)
        .map_err(|_| vhost::Error::InvalidGuestMemory)
}

/// Returns what makes an error out of a failed act.
fn asking(device: &str) -> impl Fn(&'static str) -> AskError + use<> {
    let device = device.to_owned();
    move |act| {
        let device = device.clone();
        Box::new(move |source| AttachError::Ask {
            device,
            act,
            source,
        })
    }
}

type AskError = Box<dyn FnOnce(vhost::Error) -> AttachError>;
