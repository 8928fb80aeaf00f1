//! Any requests to the entropy device.

#![no_main]

use device_rng::Rng;
use libfuzzer_sys::fuzz_target;
use virtio::harness::{Harness, Ram};

thread_local!(static RAM: Ram = Ram::default());

fuzz_target!(|requests: Vec<(Vec<u8>, u16)>| {
    RAM.with(|ram| {
        let mut harness = Harness::new(ram, Rng, true);
        for (readable, writable) in requests.iter().take(8) {
            harness.offer(0, readable, 1, u32::from(*writable));
            harness.kick(0);
        }
    });
});
