//! The entropy device (virtio 1.3 §5.4): fills what the driver offers with the host's random numbers, in its daemon.
//!
//! It is the smallest device and the one to read first: README.md walks through it.

mod jail;

use virtio::{Chain, Device, Guest, limited};

pub use self::jail::policy;

/// The only queue (virtio 1.3 §5.4.2).
const REQUESTS: usize = 0;

/// The most bytes given to one request: Linux asks for 64 at a time, and a request of gigabytes would keep the daemon
/// in the kernel for seconds. The driver learns from the used length that it got less.
const MAX_REQUEST: usize = 64 * 1024;

/// Bytes taken from the kernel at a time.
const PIECE: usize = 4096;

/// The device; it has no state.
#[derive(Debug, Default)]
pub struct Rng;

impl Device for Rng {
    fn queues(&self) -> usize {
        1
    }

    fn features(&self) -> u64 {
        0
    }

    fn kicked(&mut self, _queue: usize, guest: &mut Guest<'_>) {
        let memory = guest.memory;
        let Some(ring) = guest.ring(REQUESTS) else {
            return;
        };
        loop {
            ring.mute(memory);
            while let Some(request) = ring.pop(memory) {
                let given = fill(&request);
                ring.push(memory, request.head, given);
            }
            // A request that came in after the last pop would wait for a kick that never comes.
            if !ring.listen(memory) {
                break;
            }
        }
        ring.notify(memory);
    }
}

/// Fills a request with random bytes; returns how many.
fn fill(request: &Chain<'_>) -> u32 {
    let wanted = request.writable.len().min(MAX_REQUEST);
    let mut bytes = [0; PIECE];
    let mut given = 0;
    while given < wanted {
        let piece = &mut bytes[..PIECE.min(wanted - given)];
        match rustix::rand::getrandom(&mut *piece, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => given += request.writable.write(given, &piece[..count]),
            Err(error) => {
                limited!(warn, "the kernel gave no random bytes: {error}");
                break;
            }
        }
    }
    u32::try_from(given).expect("MAX_REQUEST fits in 32 bits")
}
