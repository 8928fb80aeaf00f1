//! The network card (virtio 1.3 §5.1): Ethernet frames between the guest and passt's stream socket, in its daemon.
//!
//! There is no offload: a frame is a frame. Large frames are what makes it fast, so a guest is told a large MTU and its
//! buffers may be merged. When passt goes away the card stays and its link is down: the guest's own network settings
//! survive, and concierge starts a new daemon with a new passt at the next start.

mod allowed;
mod jail;
mod stream;

use std::io;
use std::os::unix::net::UnixStream;

use virtio::{Chain, Device, Guest, Interest, Memory, Poll, Ready, Ring, limited};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
    VIRTIO_NET_S_LINK_UP,
};

use self::allowed::Outgoing;
pub use self::jail::policy;
use self::stream::{Cut, MAX_FRAME, Outcome, Stream};

/// Queues of the first pair (virtio 1.3 §5.1.2).
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// `struct virtio_net_hdr` with `num_buffers`, which virtio 1 always has (virtio 1.3 §5.1.6).
const HEADER: usize = 12;

/// Where `num_buffers` is in it.
const NUM_BUFFERS: usize = 10;

/// The least frame: two addresses and a type.
const MIN_FRAME: usize = 14;

/// Frames sent with one system call, so that their slices stay within what writev(2) takes.
const BATCH: usize = 64;

/// Batches and reads in one go before the other direction and the front end have their turn.
const ROUNDS: usize = 8;

/// The token of passt's socket.
const SOCKET: u64 = 0;

/// Bytes of configuration: MAC, status, queue pairs, MTU (virtio 1.3 §5.1.4).
const CONFIG: usize = 12;

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
    stream: Option<Stream>,
    readiness: Readiness,
    config: [u8; CONFIG],
    features: u64,
    merges_buffers: bool,
}

impl Net {
    /// Returns a card with address `mac` whose frames go through `socket`; without `mtu` the guest chooses.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking.
    pub fn new(socket: UnixStream, mac: [u8; 6], mtu: Option<u16>) -> io::Result<Self> {
        let mut features =
            1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STATUS | 1 << VIRTIO_NET_F_MRG_RXBUF;
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
            stream: Some(Stream::new(socket)?),
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
                self.stream = None;
                self.config[6..8].fill(0);
                // Once more, to take the guest's frames and drop them.
                guest.put_off();
            }
        }
    }

    /// Gives the guest what passt has sent; returns whether there may be more.
    fn receive(&mut self, guest: &mut Guest<'_>) -> Result<bool, Cut> {
        let memory = guest.memory;
        let Some(stream) = &mut self.stream else {
            return Ok(false);
        };
        let Some(ring) = guest.ring(RECEIVE) else {
            return Ok(false);
        };
        ring.mute(memory);
        for _ in 0..ROUNDS {
            while let Some(frame) = stream.frame()? {
                while !deliver(frame, self.merges_buffers, ring, memory) {
                    if !ring.listen(memory) {
                        // The guest kicks when it has buffers again; until then passt waits.
                        ring.notify(memory);
                        return Ok(false);
                    }
                }
                let length = frame.len();
                stream.forget_frame(length);
            }
            if !self.readiness.readable || !stream.fill()? {
                self.readiness.readable = false;
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
        if let Some(stream) = &mut self.stream
            && (!self.readiness.writable || stream.flush()? == Outcome::Full)
        {
            self.readiness.writable = false;
            return Ok(false);
        }
        ring.mute(memory);
        for _ in 0..ROUNDS {
            let (heads, mut frames) = take_frames(ring, memory);
            if heads.is_empty() {
                break;
            }
            let outcome = match &mut self.stream {
                Some(stream) => stream.send(&mut frames)?,
                None => Outcome::Sent,
            };
            for head in heads {
                ring.push(memory, head, 0);
            }
            if outcome == Outcome::Full {
                self.readiness.writable = false;
                ring.notify(memory);
                return Ok(false);
            }
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
    }

    fn config(&mut self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, poll: &Poll) -> io::Result<()> {
        match &self.stream {
            Some(stream) => poll.add(stream.socket(), SOCKET, Interest::Changes),
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

/// Puts a frame into as many of the guest's buffers as it needs; returns false if there are not enough yet.
fn deliver(frame: &[u8], merge: bool, ring: &mut Ring, memory: &Memory) -> bool {
    let wanted = frame.len().saturating_add(HEADER);
    let mut buffers: Vec<Chain<'_>> = Vec::new();
    let mut room = 0_usize;
    while room < wanted {
        if !merge && !buffers.is_empty() {
            limited!(
                warn,
                "a frame of {} bytes does not fit into the guest's buffer",
                frame.len()
            );
            ring.unpop();
            return true;
        }
        let Some(buffer) = ring.pop(memory) else {
            buffers.iter().for_each(|_| ring.unpop());
            return false;
        };
        room = room.saturating_add(buffer.writable.len());
        buffers.push(buffer);
    }
    let mut header = [0; HEADER];
    let count = u16::try_from(buffers.len()).unwrap_or(u16::MAX);
    header[NUM_BUFFERS..].copy_from_slice(&count.to_le_bytes());
    let mut rest = frame;
    for (position, buffer) in buffers.iter().enumerate() {
        let start = if position == 0 {
            buffer.writable.write(0, &header)
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

/// Takes a batch of frames that the guest sends, without their headers; a frame that cannot be is left out.
fn take_frames<'m>(ring: &mut Ring, memory: &'m Memory) -> (Vec<u16>, Vec<Outgoing<'m>>) {
    let (mut heads, mut frames) = (Vec::new(), Vec::new());
    let mut slices = 0_usize;
    while heads.len() < BATCH {
        let Some(request) = ring.pop(memory) else {
            break;
        };
        let frame = request.readable.part(HEADER, MAX_FRAME.saturating_add(1));
        // Each frame has its length and its head as two more slices.
        slices = slices
            .saturating_add(frame.slices().len())
            .saturating_add(2);
        if slices > virtio::MAX_VECTORS && !heads.is_empty() {
            ring.unpop();
            break;
        }
        heads.push(request.head);
        if (MIN_FRAME..=MAX_FRAME).contains(&frame.len()) {
            match Outgoing::new(&frame) {
                Some(frame) => frames.push(frame),
                None => limited!(warn, "the guest sent a frame that may not leave it"),
            }
        } else {
            limited!(
                warn,
                "the guest sent a frame of {} bytes, which is no frame",
                frame.len()
            );
        }
    }
    (heads, frames)
}
