//! Any bytes as the tables of a queue: every request that comes out of them lies in guest memory, and the walk ends.

#![no_main]

use libfuzzer_sys::fuzz_target;
use virtio::harness::{Harness, MEMORY, Ram, SIZE};
use virtio::{Device, Guest};

/// Reads and writes everything that it is given.
struct Echo;

impl Device for Echo {
    fn queues(&self) -> usize {
        1
    }

    fn features(&self) -> u64 {
        0
    }

    fn kicked(&mut self, queue: usize, guest: &mut Guest<'_>) {
        let memory = guest.memory;
        let Some(ring) = guest.ring(queue) else { return };
        ring.mute(memory);
        // The driver may write any index: at most one ring's worth is there at a time.
        for _ in 0..2 * SIZE {
            let Some(request) = ring.pop(memory) else { break };
            let limit = usize::from(SIZE) * MEMORY as usize;
            assert!(request.readable.len() <= limit && request.writable.len() <= limit);
            let mut first = [0; 64];
            let read = request.readable.read(0, &mut first);
            assert!(read == request.readable.len().min(64));
            assert!(request.writable.write(0, &first) == request.writable.len().min(64));
            assert!(request.readable.part(3, 5).len() <= 5);
            ring.push(memory, request.head, 64);
        }
        ring.listen(memory);
        ring.notify(memory);
    }
}

thread_local!(static RAM: Ram = Ram::default());

fuzz_target!(|input: (bool, Vec<u8>, Vec<u8>)| {
    let (event_index, tables, later) = input;
    RAM.with(|ram| {
        let mut harness = Harness::new(ram, Echo, event_index);
        harness.write(0, &tables);
        harness.kick(0);
        // The driver goes on writing while the device works.
        harness.write(0, &later);
        harness.kick(0);
    });
});
