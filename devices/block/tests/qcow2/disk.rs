//! A qcow2 image behind a queue, and the requests of a guest.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;

use device_block::{Block, Format, Layer, Options};
use fakes::driver::{Driver, Wishes};

pub(crate) const BYTES: u64 = 64 << 20;
pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const FLUSH: u32 = 4;
pub(crate) const DISCARD: u32 = 11;
pub(crate) const WRITE_ZEROES: u32 = 13;
pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;

pub(crate) fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn options(read_only: bool) -> Options {
    Options {
        format: Format::Qcow2,
        read_only,
        serial: String::new(),
        queues: 1,
    }
}

pub(crate) fn try_open(image: &File, below: Vec<Layer>, read_only: bool) -> std::io::Result<Block> {
    Block::new(image.try_clone().unwrap(), below, &options(read_only))
}

pub(crate) fn guest(device: Block) -> Driver {
    let (front, back) = UnixStream::pair().unwrap();
    thread::spawn(move || virtio::serve(back, device));
    let wishes = Wishes {
        queues: 1,
        size: 128,
        features: u64::MAX,
    };
    Driver::new(front, wishes)
}

pub(crate) fn open(image: &File, below: Vec<Layer>) -> Driver {
    guest(try_open(image, below, false).unwrap())
}

/// Sends a request; returns its status and what was read.
pub(crate) fn ask(
    driver: &mut Driver,
    kind: u32,
    sector: u64,
    data: &[u8],
    read: u32,
) -> (u8, Vec<u8>) {
    let ring = &mut driver.rings[0];
    let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
    let question = ring.store(&[&header, data].concat());
    let answer = ring.room(read + 1);
    ring.offer(&[question, answer]).unwrap();
    ring.kick();
    ring.wait();
    let mut bytes = ring.read(answer.address, read as usize + 1);
    ring.give_back(question.address);
    (bytes.pop().unwrap(), bytes)
}

pub(crate) fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [
        &sector.to_le_bytes()[..],
        &sectors.to_le_bytes(),
        &flags.to_le_bytes(),
    ]
    .concat()
}

/// Bytes that are nowhere the same.
pub(crate) fn pattern(seed: u8, bytes: u32) -> Vec<u8> {
    (0..bytes)
        .map(|at| (at / 251) as u8 ^ (at as u8).wrapping_mul(seed | 1))
        .collect()
}
