//! The socket device (virtio 1.3 §5.10): streams between guest processes and the host's Unix sockets, in its daemon.
//!
//! The guest is hostile: a packet that breaks the rules resets its connection, and nothing it does holds up another
//! connection. Host processes are the user's own, but one that does not read must not hold up others either.

mod connection;
mod host;
mod jail;
mod muxer;
mod packet;
mod transmit;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use virtio::{Device, Guest, Interest, Poll, Ready};

pub use self::jail::policy;
use self::muxer::{LISTENER, Muxer};
use self::transmit::Sent;

/// Queues (virtio 1.3 §5.10.2): to the guest, from the guest, events. The device has no event to send, because its
/// connections never outlive the driver's view of them.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const QUEUES: usize = 3;

/// The device.
#[derive(Debug)]
pub struct Vsock {
    muxer: Muxer,
    config: [u8; 8],
}

impl Vsock {
    /// Returns a device for the guest with `guest_cid`.
    ///
    /// Host processes come through `listener`; guest processes reach the sockets `vsock.sock_PORT` in `directory`,
    /// which is empty where the jail has made it the current directory.
    ///
    /// # Errors
    /// The listener cannot be made non-blocking.
    pub fn new(guest_cid: u32, listener: UnixListener, directory: PathBuf) -> io::Result<Self> {
        let guest_cid = u64::from(guest_cid);
        let muxer = Muxer::new(guest_cid, host::Host::new(listener, directory)?);
        Ok(Self {
            muxer,
            config: guest_cid.to_le_bytes(),
        })
    }

    /// Takes packets from the guest, as many as a ring holds at most, and sends what they cause.
    fn receive(&mut self, guest: &mut Guest<'_>) {
        let (memory, poll) = (guest.memory, guest.poll);
        let Some(ring) = guest.ring(TRANSMIT) else {
            return;
        };
        ring.mute(memory);
        for _ in 0..virtio::MAX_RING {
            let Some(packet) = ring.pop(memory) else {
                break;
            };
            self.muxer.take_packet(&packet.readable, poll);
            ring.push(memory, packet.head, 0);
        }
        let more = ring.listen(memory);
        ring.notify(memory);
        if more {
            guest.put_off();
        }
        self.send(guest);
    }

    /// Sends what the guest is owed as far as it has given buffers.
    fn send(&mut self, guest: &mut Guest<'_>) {
        let memory = guest.memory;
        let Some(ring) = guest.ring(RECEIVE) else {
            return;
        };
        ring.mute(memory);
        let outcome = loop {
            match self.muxer.send(ring, memory) {
                Sent::Starved if ring.listen(memory) => {}
                outcome => break outcome,
            }
        };
        ring.notify(memory);
        if outcome == Sent::ForNow {
            guest.put_off();
        }
    }
}

impl Device for Vsock {
    fn queues(&self) -> usize {
        QUEUES
    }

    fn features(&self) -> u64 {
        0
    }

    fn config(&mut self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, poll: &Poll) -> io::Result<()> {
        poll.add(self.muxer.listener(), LISTENER, Interest::Readable)
    }

    fn kicked(&mut self, queue: usize, guest: &mut Guest<'_>) {
        match queue {
            RECEIVE => self.send(guest),
            TRANSMIT => self.receive(guest),
            _ => {}
        }
    }

    fn ready(&mut self, news: Ready, guest: &mut Guest<'_>) {
        self.muxer.socket_ready(news, guest.poll);
        self.send(guest);
    }

    fn resumed(&mut self, guest: &mut Guest<'_>) {
        self.receive(guest);
    }

    fn stopped(&mut self, queue: usize, reset: bool, _guest: &mut Guest<'_>) {
        if reset && queue == RECEIVE {
            self.muxer.forget_guest();
        }
    }
}
