//! The network card (virtio 1.3 §5.1): Ethernet frames between the guest and passt's stream socket or a TAP device, in
//! its daemon.
//!
//! What makes it fast is large frames: a guest is told a large MTU, its buffers may be merged, it need not compute
//! checksums nor cut segments, and it need not check what passt has just made. When passt goes away the card stays and
//! its link is down: the guest's own network settings survive, and concierge starts a new daemon with a new passt at the
//! next start.

mod allowed;
mod cable;
mod header;
mod jail;
mod offload;
mod stream;
mod tap;

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;

use virtio::{Chain, Device, Guest, Interest, Memory, Poll, Ready, Ring, limited};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

use self::cable::{Cable, Cut, MAX_FRAME, Outcome};
use self::header::{HEADER, Header};
pub use self::jail::policy;
use self::stream::Stream;
use self::tap::Tap;

/// Queues of the first pair (virtio 1.3 §5.1.2).
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// The least frame: two addresses and a type.
const MIN_FRAME: usize = 14;

/// Frames and reads in one go before the other direction and the front end have their turn.
const ROUNDS: usize = 8;
const FRAMES: usize = 256;

/// After so many bytes the guest is told, so that it works while this side goes on.
const TELL: usize = 64 * 1024;

/// The token of the cable.
const CABLE: u64 = 0;

/// Bytes of configuration: MAC, status, queue pairs, MTU (virtio 1.3 §5.1.4).
const CONFIG: usize = 12;

/// What the guest may leave to this side, whatever the cable: a segment that is not cut is a large packet to passt.
const OFFLOADS: u64 = 1 << VIRTIO_NET_F_CSUM
    | 1 << VIRTIO_NET_F_GUEST_CSUM
    | 1 << VIRTIO_NET_F_HOST_TSO4
    | 1 << VIRTIO_NET_F_HOST_TSO6;

/// What only a TAP device sends.
const TAP_OFFLOADS: u64 = 1 << VIRTIO_NET_F_GUEST_TSO4 | 1 << VIRTIO_NET_F_GUEST_TSO6;

/// What carries the frames on the host.
#[derive(Debug)]
pub enum Backend {
    /// A stream socket to passt.
    Stream(UnixStream),
    /// A TAP device.
    Tap(File),
}

/// Whether the socket can be written to and read from, as far as epoll has told.
#[derive(Clone, Copy, Debug)]
struct Readiness {
    readable: bool,
    writable: bool,
}

/// The card.
#[derive(Debug)]
pub struct Net {
    /// Nothing when passt has gone.
    cable: Option<Cable>,
    readiness: Readiness,
    config: [u8; CONFIG],
    features: u64,
    merges_buffers: bool,
}

impl Net {
    /// Returns a card with address `mac` whose frames go to `backend`; without `mtu` the guest chooses.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking, or the TAP device is of another kind.
    pub fn new(backend: Backend, mac: [u8; 6], mtu: Option<u16>) -> io::Result<Self> {
        let (cable, offloads) = match backend {
            Backend::Stream(socket) => (Cable::Stream(Stream::new(socket)?), OFFLOADS),
            Backend::Tap(file) => (Cable::Tap(Tap::new(file)?), OFFLOADS | TAP_OFFLOADS),
        };
        let mut features = offloads
            | 1 << VIRTIO_NET_F_MAC
            | 1 << VIRTIO_NET_F_STATUS
            | 1 << VIRTIO_NET_F_MRG_RXBUF;
        if mtu.is_some() {
            features |= 1 << VIRTIO_NET_F_MTU;
        }
        let link_up = u16::try_from(VIRTIO_NET_S_LINK_UP).expect("the status is a le16");
        let one_pair = 1_u16.to_le_bytes();
        let mut config = [0; CONFIG];
        config[..6].copy_from_slice(&mac);
        config[6..8].copy_from_slice(&link_up.to_le_bytes());
        config[8..10].copy_from_slice(&one_pair);
        config[10..].copy_from_slice(&mtu.unwrap_or(0).to_le_bytes());
        Ok(Self {
            cable: Some(cable),
            readiness: Readiness {
                readable: true,
                writable: true,
            },
            config,
            features,
            merges_buffers: false,
        })
    }

    /// Works in both directions until there is nothing left, or for long enough.
    fn work(&mut self, guest: &mut Guest<'_>) {
        let outcome = self
            .receive(guest)
            .and_then(|more_in| Ok(self.transmit(guest)? || more_in));
        match outcome {
            Ok(true) => guest.put_off(),
            Ok(false) => {}
            Err(cut) => {
                tracing::warn!("the network's other side has gone: {cut}; the link is down");
                self.cable = None;
                self.config[6..8].fill(0);
                // Once more, to take the guest's frames and drop them.
                guest.put_off();
            }
        }
    }

    /// Gives the guest what the host has sent; returns whether there may be more.
    fn receive(&mut self, guest: &mut Guest<'_>) -> Result<bool, Cut> {
        let memory = guest.memory;
        let Some(cable) = &mut self.cable else {
            return Ok(false);
        };
        let Some(ring) = guest.ring(RECEIVE) else {
            return Ok(false);
        };
        ring.mute(memory);
        let mut untold = 0_usize;
        for _ in 0..ROUNDS {
            // First what the host has: it may drop what waits, where the guest would keep it.
            while self.readiness.readable && !cable.is_full() {
                self.readiness.readable = cable.fill()?;
            }
            while let Some((header, frame)) = cable.frame()? {
                let length = frame.len();
                if !deliver(header, frame, self.merges_buffers, ring, memory) {
                    // The guest kicks when it has more buffers; until then the host waits.
                    ring.notify(memory);
                    return Ok(false);
                }
                cable.forget_frame(length);
                untold = untold.saturating_add(length);
                if untold >= TELL {
                    ring.notify(memory);
                    untold = 0;
                }
            }
            if !self.readiness.readable {
                ring.notify(memory);
                return Ok(false);
            }
        }
        ring.notify(memory);
        Ok(true)
    }

    /// Sends what the guest has offered; returns whether there may be more.
    fn transmit(&mut self, guest: &mut Guest<'_>) -> Result<bool, Cut> {
        let memory = guest.memory;
        let Some(ring) = guest.ring(TRANSMIT) else {
            return Ok(false);
        };
        if !self.readiness.writable {
            return Ok(false);
        }
        ring.mute(memory);
        let mut outcome = Outcome::Sent;
        for _ in 0..FRAMES {
            let Some(request) = ring.pop(memory) else {
                break;
            };
            outcome = match &mut self.cable {
                Some(cable) if is_frame(&request) => cable.send(&request.readable)?,
                _ => Outcome::Sent,
            };
            if outcome == Outcome::Full {
                ring.unpop();
                break;
            }
            ring.push(memory, request.head, 0);
        }
        if outcome == Outcome::Sent
            && let Some(cable) = &mut self.cable
        {
            outcome = cable.flush()?;
        }
        if outcome == Outcome::Full {
            // The guest need not kick before the host has room again.
            self.readiness.writable = false;
            ring.notify(memory);
            return Ok(false);
        }
        let more = ring.listen(memory);
        ring.notify(memory);
        Ok(more)
    }
}

impl Device for Net {
    fn queues(&self) -> usize {
        2
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn negotiated(&mut self, features: u64) {
        self.merges_buffers = features & 1 << VIRTIO_NET_F_MRG_RXBUF != 0;
        if let Some(cable) = &mut self.cable
            && let Err(error) = cable.negotiated(features)
        {
            tracing::warn!("the host's end cannot do what the guest agreed to: {error}");
        }
    }

    fn config(&mut self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, poll: &Poll) -> io::Result<()> {
        match &self.cable {
            Some(cable) => poll.add(cable.descriptor(), CABLE, Interest::Changes),
            None => Ok(()),
        }
    }

    fn kicked(&mut self, _queue: usize, guest: &mut Guest<'_>) {
        self.work(guest);
    }

    fn ready(&mut self, news: Ready, guest: &mut Guest<'_>) {
        self.readiness.readable |= news.readable;
        self.readiness.writable |= news.writable;
        self.work(guest);
    }

    fn resumed(&mut self, guest: &mut Guest<'_>) {
        self.work(guest);
    }
}

/// Puts a frame into as many of the guest's buffers as it needs; returns false if there are not enough yet, and asks for
/// a kick with the next.
fn deliver(
    mut header: Header,
    frame: &[u8],
    merge: bool,
    ring: &mut Ring,
    memory: &Memory,
) -> bool {
    let wanted = frame.len().saturating_add(HEADER);
    let mut buffers: Vec<Chain<'_>> = Vec::new();
    let mut room = 0_usize;
    while room < wanted {
        let most = if merge { ring.size() } else { 1 };
        if buffers.len() == most {
            limited!(
                warn,
                "a frame of {} bytes does not fit into the guest's buffers",
                frame.len()
            );
            buffers.iter().for_each(|_| ring.unpop());
            return true;
        }
        let Some(buffer) = ring.pop(memory) else {
            // Asked for behind those already taken: the guest must add to them, not only have some.
            if ring.listen(memory) {
                continue;
            }
            buffers.iter().for_each(|_| ring.unpop());
            return false;
        };
        room = room.saturating_add(buffer.writable.len());
        buffers.push(buffer);
    }
    header.set_buffers(u16::try_from(buffers.len()).unwrap_or(u16::MAX));
    let mut rest = frame;
    for (position, buffer) in buffers.iter().enumerate() {
        let start = if position == 0 {
            buffer.writable.write(0, &header.0)
        } else {
            0
        };
        let copied = buffer.writable.write(start, rest);
        rest = rest.get(copied..).unwrap_or_default();
        let written = u32::try_from(start.saturating_add(copied)).unwrap_or(u32::MAX);
        ring.push(memory, buffer.head, written);
    }
    true
}

/// Whether what the guest sends can be a frame behind a header.
fn is_frame(request: &Chain<'_>) -> bool {
    let length = request.readable.len().saturating_sub(HEADER);
    let good = (MIN_FRAME..=MAX_FRAME).contains(&length);
    if !good {
        limited!(
            warn,
            "the guest sent a frame of {length} bytes, which is no frame"
        );
    }
    good
}
