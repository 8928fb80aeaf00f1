//! The entropy device driven as a guest drives it, over a socket pair and shared memory.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails where it stands"
)]

use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use fakes::driver::{Driver, Wishes};
use fakes::ring::Piece;
use virtio::ServeError;

const ALL: u64 = u64::MAX;
const NO_EVENT_INDEX: u64 = !(1 << 29);

fn device(features: u64) -> (Driver, JoinHandle<Result<(), ServeError>>) {
    let (front, back) = UnixStream::pair().unwrap();
    let daemon = thread::spawn(move || virtio::serve(back, device_rng::Rng));
    (
        Driver::new(
            front,
            Wishes {
                queues: 1,
                size: 8,
                features,
            },
        ),
        daemon,
    )
}

#[test]
fn request_is_filled_with_different_bytes() {
    for features in [ALL, NO_EVENT_INDEX] {
        let (mut driver, _daemon) = device(features);
        let ring = &mut driver.rings[0];
        let room = [ring.room(64), ring.room(36)];
        let head = ring.offer(&room).unwrap();
        ring.kick();
        assert_eq!(ring.wait(), (head, 100));
        let bytes = ring.read(room[0].address, 64);
        assert!(
            bytes.iter().any(|&byte| byte != bytes[0]),
            "64 equal random bytes"
        );
    }
}

#[test]
fn indirect_request_is_filled() {
    let (mut driver, _daemon) = device(ALL);
    let ring = &mut driver.rings[0];
    let room: Vec<Piece> = (0..20).map(|_| ring.room(10)).collect();
    // The limit is the queue's size, which is 8.
    let head = ring.offer_indirect(&room[..8]);
    ring.kick();
    assert_eq!(ring.wait(), (head, 80));
}

#[test]
fn many_requests_wrap_the_ring() {
    let (mut driver, _daemon) = device(ALL);
    let ring = &mut driver.rings[0];
    let room = ring.room(16);
    for _ in 0..70_000 {
        ring.offer(&[room]).unwrap();
        ring.kick();
        assert_eq!(ring.wait().1, 16);
    }
}

#[test]
fn huge_request_is_cut() {
    let (mut driver, _daemon) = device(ALL);
    let ring = &mut driver.rings[0];
    let room = ring.room(1 << 20);
    ring.offer(&[room]).unwrap();
    ring.kick();
    assert_eq!(ring.wait().1, 64 * 1024);
}

#[test]
fn request_without_room_is_returned_empty() {
    let (mut driver, _daemon) = device(ALL);
    let ring = &mut driver.rings[0];
    let question = ring.store(b"why?");
    ring.offer(&[question]).unwrap();
    ring.kick();
    assert_eq!(ring.wait().1, 0);
}

#[test]
fn address_outside_of_memory_stops_the_ring_and_not_the_daemon() {
    let (mut driver, daemon) = device(ALL);
    let ring = &mut driver.rings[0];
    ring.offer(&[Piece {
        address: 1 << 40,
        length: 8,
        writable: true,
    }])
    .unwrap();
    ring.kick();
    assert_eq!(ring.wait_for(std::time::Duration::from_millis(200)), None);
    // The driver resets the device and is served again.
    driver.stop_ring(0);
    driver.rings[0].reset();
    driver.start_ring(0, 0);
    let ring = &mut driver.rings[0];
    let room = ring.room(8);
    ring.offer(&[room]).unwrap();
    ring.kick();
    assert_eq!(ring.wait().1, 8);
    drop(driver);
    daemon.join().unwrap().unwrap();
}

#[test]
fn paused_queue_goes_on_where_it_stopped() {
    let (mut driver, _daemon) = device(ALL);
    let room = driver.rings[0].room(8);
    for _ in 0..3 {
        driver.rings[0].offer(&[room]).unwrap();
        driver.rings[0].kick();
        driver.rings[0].wait();
    }
    let base = driver.stop_ring(0);
    assert_eq!(base, 3);
    driver.rings[0].offer(&[room]).unwrap();
    driver.start_ring(0, 3);
    assert_eq!(driver.rings[0].wait().1, 8);
}

#[test]
fn daemon_ends_with_its_front_end() {
    let (driver, daemon) = device(ALL);
    drop(driver);
    daemon.join().unwrap().unwrap();
}
