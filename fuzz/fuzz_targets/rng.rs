//! Any requests to the entropy device.

#![no_main]

use std::cell::RefCell;

use device_rng::Rng;
use libfuzzer_sys::fuzz_target;
use virtio::harness::{Harness, Ram};

thread_local!(static GUEST: RefCell<Harness<'static, Rng>> = {
    let ram: &Ram = Box::leak(Box::default());
    RefCell::new(Harness::new(ram, Rng, true))
});

fuzz_target!(|input: (bool, Vec<(Vec<u8>, u8, bool)>)| {
    let (event_index, requests) = input;
    GUEST.with_borrow_mut(|guest| {
        guest.restart(event_index);
        for (readable, writable, longer) in requests.iter().take(8) {
            // Around the piece that is asked of the kernel at a time: random bytes are what takes time here.
            let writable = u32::from(*writable) + if *longer { 4000 } else { 0 };
            guest.offer(0, readable, 1, writable);
            guest.kick(0);
        }
    });
});
