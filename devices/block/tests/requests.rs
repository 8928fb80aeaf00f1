//! The disk driven as a guest drives it, on a real sparse file.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails where it stands"
)]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::thread;

use device_block::{Block, Format, Options};
use fakes::driver::{Driver, Wishes};
use fakes::ring::{DriverRing, Piece};

const SECTORS: u64 = 8192;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

struct Guest {
    driver: Driver,
    file: File,
}

fn disk(read_only: bool, queues: u16) -> Guest {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SECTORS * 512 + 100).unwrap();
    let options = Options {
        format: Format::Raw,
        read_only,
        serial: "root".to_owned(),
        queues,
    };
    let device = Block::new(file.try_clone().unwrap(), Vec::new(), &options).unwrap();
    let (front, back) = UnixStream::pair().unwrap();
    thread::spawn(move || virtio::serve(back, device));
    let wishes = Wishes {
        queues: usize::from(queues),
        size: 128,
        features: u64::MAX,
    };
    Guest {
        driver: Driver::new(front, wishes),
        file,
    }
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [
        &sector.to_le_bytes()[..],
        &sectors.to_le_bytes(),
        &flags.to_le_bytes(),
    ]
    .concat()
}

/// Sends a request and returns its status, the bytes read and what the device says it wrote.
fn ask(
    ring: &mut DriverRing,
    kind: u32,
    sector: u64,
    data: &[u8],
    read: u32,
) -> (u8, Vec<u8>, u32) {
    let mut pieces = vec![ring.store(&header(kind, sector))];
    if !data.is_empty() {
        pieces.push(ring.store(data));
    }
    let room = ring.room(read + 1);
    if read > 0 {
        pieces.push(Piece {
            length: read,
            ..room
        });
    }
    let status = Piece {
        address: room.address + u64::from(read),
        length: 1,
        writable: true,
    };
    ring.write(status.address, &[0xee]);
    pieces.push(status);
    ring.offer(&pieces).unwrap();
    ring.kick();
    let (_, written) = ring.wait();
    (
        ring.read(status.address, 1)[0],
        ring.read(room.address, read as usize),
        written,
    )
}

fn status(guest: &mut Guest, kind: u32, sector: u64, data: &[u8]) -> u8 {
    ask(&mut guest.driver.rings[0], kind, sector, data, 0).0
}

#[test]
fn config_has_capacity_and_limits() {
    let mut guest = disk(false, 2);
    let config = guest.driver.config(60);
    assert_eq!(config[..8], SECTORS.to_le_bytes());
    assert_eq!(config[34..36], [2, 0]);
    // A disk that grew is found by asking again.
    guest.file.set_len(SECTORS * 1024).unwrap();
    assert_eq!(guest.driver.config(60)[..8], (SECTORS * 2).to_le_bytes());
}

#[test]
fn what_is_written_is_read_and_in_the_file() {
    let mut guest = disk(false, 1);
    let data: Vec<u8> = (0..4096_u32).map(|at| (at / 16) as u8).collect();
    assert_eq!(status(&mut guest, OUT, 8, &data), OK);
    let (answer, bytes, written) = ask(&mut guest.driver.rings[0], IN, 8, &[], 4096);
    assert_eq!((answer, written), (OK, 4097));
    assert!(bytes == data);
    let mut file = vec![0; 4096];
    guest.file.read_exact_at(&mut file, 4096).unwrap();
    assert!(file == data);
}

#[test]
fn request_in_one_readable_and_one_writable_piece_is_served() {
    let mut guest = disk(false, 1);
    let ring = &mut guest.driver.rings[0];
    let question = ring.store(&[header(OUT, 0), vec![5; 512]].concat());
    let answer = ring.room(1);
    ring.offer(&[question, answer]).unwrap();
    ring.kick();
    assert_eq!(ring.wait().1, 1);
    assert_eq!(ring.read(answer.address, 1), [OK]);
    let mut byte = [0];
    guest.file.read_exact_at(&mut byte, 511).unwrap();
    assert_eq!(byte, [5]);
}

#[test]
fn nothing_beyond_the_end_is_touched() {
    let mut guest = disk(false, 1);
    for sector in [SECTORS, SECTORS - 1, u64::MAX, u64::MAX / 512] {
        assert_eq!(
            status(&mut guest, OUT, sector, &[1; 1024]),
            IOERR,
            "{sector}"
        );
        assert_eq!(
            ask(&mut guest.driver.rings[0], IN, sector, &[], 1024).0,
            IOERR,
            "{sector}"
        );
        assert_eq!(
            status(&mut guest, DISCARD, 0, &range(sector, 2, 0)),
            IOERR,
            "{sector}"
        );
    }
    assert_eq!(
        status(&mut guest, OUT, 0, &[1; 100]),
        IOERR,
        "part of a sector"
    );
    assert_eq!(guest.file.metadata().unwrap().len(), SECTORS * 512 + 100);
    assert_eq!(guest.file.metadata().unwrap().blocks(), 0);
}

#[test]
fn read_only_disk_refuses_changes() {
    let mut guest = disk(true, 1);
    for (kind, data) in [
        (OUT, vec![1; 512]),
        (DISCARD, range(0, 1, 0)),
        (WRITE_ZEROES, range(0, 1, 0)),
    ] {
        assert_eq!(status(&mut guest, kind, 0, &data), IOERR);
    }
    assert_eq!(ask(&mut guest.driver.rings[0], IN, 0, &[], 512).0, OK);
}

#[test]
fn discard_and_zeroes_give_space_back() {
    for (kind, flags) in [(DISCARD, 0), (WRITE_ZEROES, 1)] {
        let mut guest = disk(false, 1);
        for part in 0..4 {
            assert_eq!(status(&mut guest, OUT, part * 2048, &[7; 1 << 20]), OK);
        }
        let before = guest.file.metadata().unwrap().blocks();
        let two = [range(0, 2048, flags), range(4096, 2048, flags)].concat();
        assert_eq!(status(&mut guest, kind, 0, &two), OK);
        assert!(
            guest.file.metadata().unwrap().blocks() <= before / 2,
            "no space came back"
        );
        let zeroes = ask(&mut guest.driver.rings[0], IN, 0, &[], 4096).1;
        assert!(zeroes.iter().all(|&byte| byte == 0));
        assert!(ask(&mut guest.driver.rings[0], IN, 2048, &[], 512).1 == [7; 512]);
    }
}

#[test]
fn zeroes_without_unmap_are_zeroes() {
    let mut guest = disk(false, 1);
    assert_eq!(status(&mut guest, OUT, 0, &[7; 8192]), OK);
    assert_eq!(status(&mut guest, WRITE_ZEROES, 0, &range(1, 3, 0)), OK);
    let bytes = ask(&mut guest.driver.rings[0], IN, 0, &[], 4096).1;
    assert!(
        bytes[..512] == [7; 512] && bytes[512..2048] == [0; 1536] && bytes[2048..] == [7; 2048]
    );
}

#[test]
fn malformed_ranges_are_refused() {
    let mut guest = disk(false, 1);
    assert_eq!(
        status(&mut guest, DISCARD, 0, &range(0, 1, 1)),
        UNSUPP,
        "a discard has no flags"
    );
    assert_eq!(
        status(&mut guest, WRITE_ZEROES, 0, &range(0, 1, 2)),
        UNSUPP,
        "unknown flag"
    );
    assert_eq!(status(&mut guest, DISCARD, 0, &[0; 15]), IOERR);
    assert_eq!(status(&mut guest, DISCARD, 0, &[]), IOERR);
    assert_eq!(
        status(&mut guest, DISCARD, 0, &range(0, 1, 0).repeat(17)),
        IOERR
    );
}

#[test]
fn serial_flush_and_unknown_requests_are_answered() {
    let mut guest = disk(false, 1);
    let (answer, serial, _) = ask(&mut guest.driver.rings[0], GET_ID, 0, &[], 20);
    assert_eq!((answer, &serial[..5]), (OK, &b"root\0"[..]));
    assert_eq!(status(&mut guest, FLUSH, 0, &[]), OK);
    assert_eq!(status(&mut guest, 77, 0, &[]), UNSUPP);
}

#[test]
fn short_header_and_missing_status_do_no_harm() {
    let mut guest = disk(false, 1);
    let ring = &mut guest.driver.rings[0];
    let (short, answer) = (ring.store(&[0; 7]), ring.room(1));
    ring.offer(&[short, answer]).unwrap();
    ring.kick();
    ring.wait();
    assert_eq!(ring.read(answer.address, 1), [IOERR]);
    let whole = ring.store(&header(FLUSH, 0));
    ring.offer(&[whole]).unwrap();
    ring.kick();
    assert_eq!(ring.wait().1, 0);
    assert_eq!(status(&mut guest, FLUSH, 0, &[]), OK);
}

#[test]
fn every_queue_is_served() {
    let mut guest = disk(false, 4);
    for (queue, ring) in guest.driver.rings.iter_mut().enumerate() {
        assert_eq!(
            ask(ring, OUT, queue as u64, &[queue as u8 + 1; 512], 0).0,
            OK
        );
    }
    let bytes = ask(&mut guest.driver.rings[3], IN, 0, &[], 2048).1;
    assert_eq!(
        [bytes[0], bytes[512], bytes[1024], bytes[1536]],
        [1, 2, 3, 4]
    );
}
