//! Any bytes from a front end: the daemon answers, or ends with an error.

#![no_main]

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use device_rng::Rng;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|messages: Vec<(u8, u8, Vec<u8>)>| {
    let (mut front, back) = UnixStream::pair().unwrap();
    for (request, flags, body) in messages.iter().take(8) {
        let header = [u32::from(*request), 1 | u32::from(*flags & 8), body.len() as u32];
        let bytes = [header.map(u32::to_ne_bytes).concat(), body.clone()].concat();
        front.write_all(&bytes).unwrap();
    }
    front.shutdown(Shutdown::Write).unwrap();
    let _either_is_fine = virtio::serve(back, Rng);
});
