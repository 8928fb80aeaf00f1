//! A qcow2 image of which any byte may be wrong: it is refused or served, and nothing panics or takes memory without end.
//!
//! The input is laid over a small image that is right, so that most of it stays meaningful.

#![no_main]

use std::fs::File;
use std::io::Write;

use device_block::{Block, Format, Options};
use libfuzzer_sys::fuzz_target;
use virtio::harness::{Harness, Ram};

/// Clusters of 512 bytes: header, table of reference counts, its block, first-level table, second-level table, data.
const CLUSTER: usize = 512;
const CLUSTERS: usize = 6;

fn image() -> Vec<u8> {
    let mut image = vec![0; CLUSTERS * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let at = |cluster: usize| (cluster * CLUSTER) as u64;
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &9_u32.to_be_bytes());
    put(24, &65_536_u64.to_be_bytes());
    put(36, &2_u32.to_be_bytes());
    put(40, &at(3).to_be_bytes());
    put(48, &at(1).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    put(CLUSTER, &at(2).to_be_bytes());
    for cluster in 0..CLUSTERS {
        put(2 * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
    }
    put(3 * CLUSTER, &(at(4) | 1 << 63).to_be_bytes());
    put(4 * CLUSTER, &(at(5) | 1 << 63).to_be_bytes());
    image
}

thread_local!(static RAM: Ram = Ram::default());

fuzz_target!(|input: (Vec<(u16, u64)>, Vec<(u8, u8, u8)>)| {
    let (changes, requests) = input;
    let mut bytes = image();
    for (place, value) in changes.iter().take(16) {
        let at = usize::from(*place) % (bytes.len() - 8);
        bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }
    let memfd = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(memfd);
    file.write_all(&bytes).unwrap();
    let options = Options {
        format: Format::Qcow2,
        read_only: false,
        serial: String::new(),
        queues: 1,
    };
    let Ok(device) = Block::new(file, Vec::new(), &options) else {
        return;
    };
    RAM.with(|ram| {
        let mut harness = Harness::new(ram, device, false);
        for (kind, sector, sectors) in requests.iter().take(8) {
            let (kind, data, room) = match kind % 5 {
                0 => (0_u32, Vec::new(), u32::from(*sectors) * 512 + 1),
                1 => (1, vec![7; usize::from(*sectors) * 512], 1),
                2 => (4, Vec::new(), 1),
                more => {
                    let sector = u64::from(*sector).to_le_bytes();
                    let count = u32::from(*sectors).to_le_bytes();
                    let data = [&sector[..], &count, &u32::from(more == 4).to_le_bytes()].concat();
                    (if more == 3 { 11 } else { 13 }, data, 1)
                }
            };
            let header = [&kind.to_le_bytes()[..], &[0; 4], &u64::from(*sector).to_le_bytes()];
            harness.offer(0, &[&header.concat(), data.as_slice()].concat(), 16, room);
            harness.kick(0);
        }
    });
});
