//! The network card driven as a guest drives it, with passt's stream protocol at the other end.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails where it stands"
)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use device_net::{Backend, Net};
use fakes::driver::{Driver, Wishes};
use fakes::ring::Piece;
use virtio::ServeError;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const HEADER: [u8; 12] = [0; 12];
/// Without `VIRTIO_NET_F_MRG_RXBUF`.
const UNMERGED: u64 = !(1 << 15);

struct Card {
    driver: Driver,
    passt: UnixStream,
    daemon: JoinHandle<Result<(), ServeError>>,
}

fn card(features: u64) -> Card {
    let (socket, passt) = UnixStream::pair().unwrap();
    passt
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let device = Net::new(Backend::Stream(socket), MAC, Some(65_520)).unwrap();
    let (front, back) = UnixStream::pair().unwrap();
    let daemon = thread::spawn(move || virtio::serve(back, device));
    Card {
        driver: Driver::new(
            front,
            Wishes {
                queues: 2,
                size: 256,
                features,
            },
        ),
        passt,
        daemon,
    }
}

impl Card {
    fn passt_sends(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        self.passt.write_all(&[&length, frame].concat()).unwrap();
    }

    fn passt_gets(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.passt.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.passt.read_exact(&mut frame).unwrap();
        frame
    }

    fn give_buffers(&mut self, count: usize, bytes: u32) -> Vec<(u16, Piece)> {
        let ring = &mut self.driver.rings[0];
        let pieces: Vec<Piece> = (0..count).map(|_| ring.room(bytes)).collect();
        let given = pieces
            .into_iter()
            .map(|piece| (ring.offer(&[piece]).unwrap(), piece))
            .collect();
        ring.kick();
        given
    }

    fn transmit(&mut self, pieces: &[&[u8]]) {
        let ring = &mut self.driver.rings[1];
        let stored: Vec<Piece> = pieces.iter().map(|piece| ring.store(piece)).collect();
        ring.offer(&stored).unwrap();
        ring.kick();
        ring.wait();
    }
}

/// A frame that may leave the guest: ARP, filled with `byte`.
fn arp<const N: usize>(byte: u8) -> [u8; N] {
    let mut frame = [byte; N];
    frame[12..14].copy_from_slice(&[8, 6]);
    frame
}

#[test]
fn config_has_address_link_and_mtu() {
    let mut card = card(u64::MAX);
    let config = card.driver.config(12);
    assert_eq!(config[..6], MAC);
    assert_eq!(config[6..], [1, 0, 1, 0, 0xf0, 0xff]);
}

#[test]
fn frame_goes_out_however_it_is_cut() {
    let mut card = card(u64::MAX);
    let frame = arp::<60>(7);
    card.transmit(&[&HEADER, &frame]);
    assert_eq!(card.passt_gets(), frame);
    card.transmit(&[&[&HEADER[..], &frame].concat()]);
    assert_eq!(card.passt_gets(), frame);
    card.transmit(&[&HEADER[..5], &HEADER[5..], &frame[..1], &frame[1..]]);
    assert_eq!(card.passt_gets(), frame);
}

#[test]
fn what_is_no_frame_is_dropped() {
    let mut card = card(u64::MAX);
    card.transmit(&[&HEADER[..3]]);
    card.transmit(&[&HEADER, &[1; 13]]);
    card.transmit(&[&HEADER, &vec![1; 70_000]]);
    card.transmit(&[&HEADER, &arp::<14>(2)]);
    assert_eq!(card.passt_gets(), arp::<14>(2));
}

#[test]
fn frame_comes_in_with_its_header() {
    let mut card = card(u64::MAX);
    let given = card.give_buffers(2, 2048);
    card.passt_sends(&[9; 100]);
    let ring = &mut card.driver.rings[0];
    assert_eq!(ring.wait(), (given[0].0, 112));
    let bytes = ring.read(given[0].1.address, 112);
    // VIRTIO_NET_HDR_F_DATA_VALID: the guest need not check what passt has made.
    assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(bytes[12..], [9; 100]);
}

#[test]
fn large_frame_is_spread_over_merged_buffers() {
    let mut card = card(u64::MAX);
    let frame: Vec<u8> = (0..5000_u32).map(|at| at as u8).collect();
    let given = card.give_buffers(4, 2048);
    card.passt_sends(&frame);
    let ring = &mut card.driver.rings[0];
    let mut got = Vec::new();
    for (head, piece) in &given[..3] {
        let (used, written) = ring.wait();
        assert_eq!(used, *head);
        got.extend(ring.read(piece.address, written as usize));
    }
    assert_eq!(got[10..12], [3, 0]);
    assert_eq!(got[12..], frame);
}

#[test]
fn frame_that_fits_no_buffer_is_dropped_without_merging() {
    let mut card = card(UNMERGED);
    let given = card.give_buffers(4, 1526);
    card.passt_sends(&[1; 5000]);
    card.passt_sends(&[2; 1514]);
    let ring = &mut card.driver.rings[0];
    assert_eq!(ring.wait().1, 1526);
    assert_eq!(ring.read(given[0].1.address + 12, 1514), [2; 1514]);
}

#[test]
fn frames_wait_for_buffers() {
    let mut card = card(u64::MAX);
    for byte in 0..10 {
        card.passt_sends(&[byte; 60]);
    }
    thread::sleep(Duration::from_millis(20));
    let given = card.give_buffers(10, 128);
    let ring = &mut card.driver.rings[0];
    for (byte, (head, piece)) in given.iter().enumerate() {
        assert_eq!(ring.wait(), (*head, 72));
        assert_eq!(ring.read(piece.address + 12, 60), [byte as u8; 60]);
    }
}

#[test]
fn slow_passt_loses_no_frame() {
    const FRAMES: u32 = 20_000;
    let mut card = card(u64::MAX);
    let mut passt = card.passt.try_clone().unwrap();
    let reader = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        for number in 0..FRAMES {
            let mut frame = [0; 104];
            passt.read_exact(&mut frame).unwrap();
            assert_eq!(frame[..4], 100_u32.to_be_bytes());
            assert_eq!(frame[100..], number.to_be_bytes());
        }
    });
    let ring = &mut card.driver.rings[1];
    let frame = [&HEADER[..], &arp::<100>(0)].concat();
    let pieces: Vec<Piece> = (0..100).map(|_| ring.store(&frame)).collect();
    let mut under_way = 0;
    for number in 0..FRAMES {
        if under_way == 100 {
            ring.wait();
            under_way -= 1;
        }
        let piece = pieces[number as usize % 100];
        ring.write(piece.address + 108, &number.to_be_bytes());
        ring.offer(&[piece]).unwrap();
        ring.kick();
        under_way += 1;
    }
    reader.join().unwrap();
}

#[test]
fn card_outlives_passt_with_its_link_down() {
    let mut card = card(u64::MAX);
    drop(card.passt);
    let (ring, frame) = (
        &mut card.driver.rings[1],
        [&HEADER[..], &arp::<60>(1)].concat(),
    );
    for _ in 0..300 {
        let piece = ring.store(&frame);
        ring.offer(&[piece]).unwrap();
        ring.kick();
        ring.wait();
    }
    assert_eq!(card.driver.config(12)[6..8], [0, 0]);
    drop(card.driver);
    card.daemon.join().unwrap().unwrap();
}
