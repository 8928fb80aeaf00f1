//! Any frames of the guest's, and any bytes of passt's: what leaves is whole frames, none of them to the host's loopback.

#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use device_net::{Backend, Net};
use libfuzzer_sys::fuzz_target;
use virtio::harness::{Harness, Ram};

thread_local!(static RAM: Ram = Ram::default());

fuzz_target!(|input: (bool, Vec<(Vec<u8>, u8)>, Vec<u8>, Vec<u16>)| {
    let (event_index, frames, host, rooms) = input;
    let (socket, mut passt) = UnixStream::pair().unwrap();
    passt.set_nonblocking(true).unwrap();
    RAM.with(|ram| {
        let device = Net::new(Backend::Stream(socket), [2; 6], Some(1500)).unwrap();
        let mut harness = Harness::new(ram, device, event_index);
        for (frame, cut) in frames.iter().take(8) {
            harness.offer(1, frame, usize::from(*cut), 0);
            harness.kick(1);
        }
        for room in rooms.iter().take(8) {
            harness.offer(0, &[], 0, u32::from(*room));
        }
        // The peer may be gone already, which is one of the cases.
        let _sent = passt.write(&host);
        harness.poll();
        harness.kick(0);
    });
    let mut out = Vec::new();
    let _until_empty = passt.read_to_end(&mut out);
    let mut rest = out.as_slice();
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (frame, more) = more.split_at(u32::from_be_bytes(*length) as usize);
        assert!(frame.len() >= 14, "less than a frame left");
        match frame[12..14] {
            [8, 6] => {}
            [8, 0] => assert!(!matches!(frame[30], 0 | 127)),
            [0x86, 0xdd] => assert!(frame[38..54] != [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            _ => panic!("{:?} left", &frame[12..14]),
        }
        rest = more;
    }
    assert!(rest.is_empty());
});
