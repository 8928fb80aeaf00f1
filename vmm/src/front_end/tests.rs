//! The front end with daemons of ours, in threads: what a daemon's end leaves to its successor.

use std::thread;

use fakes::ring::DriverRing;
use spec::fd::InheritedFd;
use spec::units::Mib;
use spec::vm::Function;
use virtio::Guest;

use super::*;
use crate::virtio_device::{F_EVENT_IDX, F_VERSION_1};

const SIZE: u16 = 8;

/// A device that returns what it takes, or only the second request.
struct Returns {
    all: bool,
}

impl virtio::Device for Returns {
    fn queues(&self) -> usize {
        1
    }

    fn features(&self) -> u64 {
        0
    }

    fn kicked(&mut self, queue: usize, guest: &mut Guest<'_>) {
        let memory = guest.memory;
        let Some(ring) = guest.ring(queue) else {
            return;
        };
        let mut position = 0;
        while let Some(request) = ring.pop(memory) {
            position += 1;
            if self.all || position == 2 {
                ring.push(memory, request.head, position);
            }
        }
        ring.listen(memory);
        ring.notify(memory);
    }
}

fn daemon(all: bool) -> UnixStream {
    let (front, back) = UnixStream::pair().unwrap();
    thread::spawn(move || virtio::serve(back, Returns { all }));
    front
}

fn activation(memory: &Memory, ring: &mut DriverRing) -> Activation {
    ring.use_event_index(true);
    Activation {
        features: F_VERSION_1 | F_EVENT_IDX,
        memory: memory.clone(),
        queues: vec![ReadyQueue::of(0, ring, 0)],
    }
}

#[test]
fn next_daemon_gets_what_the_last_one_kept() {
    let memory = Memory::for_tests(Mib(64));
    let mut ring = DriverRing::new(memory.guest(), 1 << 20, 1 << 20, SIZE);
    let device = Device {
        name: "it".to_owned(),
        socket: InheritedFd(3),
        function: Function::Rng {},
        queue_size: SIZE,
    };
    let mut front = FrontEnd::attach(&device, daemon(false), memory.clone()).unwrap();
    // All three are there before the daemon looks for the first time.
    let heads = [1, 2, 3].map(|_| {
        let room = ring.room(8);
        ring.offer(&[room]).unwrap()
    });
    front.activate(activation(&memory, &mut ring)).unwrap();
    assert_eq!(ring.wait(), (heads[1], 2));
    front.reattach(daemon(true)).unwrap();
    // In their order, each once, as the first and second of the new daemon.
    assert_eq!(ring.wait(), (heads[0], 1));
    assert_eq!(ring.wait(), (heads[2], 2));
    assert_eq!((ring.take(), ring.returned()), (None, 3));
    // The driver begins anew, and nothing of before comes back.
    front.reset();
    ring.reset();
    front.activate(activation(&memory, &mut ring)).unwrap();
    let room = ring.room(8);
    let head = ring.offer(&[room]).unwrap();
    ring.kick();
    assert_eq!(ring.wait(), (head, 1));
    assert_eq!(front.pause().unwrap(), [(0, 1)]);
}
