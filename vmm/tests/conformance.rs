//! The rules of virtio 1.3 that every device must keep, checked by a driver of ours on each of them over vhost-user.
//!
//! Each device has one request whose answer is known; the rules are about how requests travel, so that one is enough.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails where it stands"
)]

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use device_block::{Block, Format, Options};
use device_net::{Backend, Net};
use device_rng::Rng;
use device_vsock::Vsock;
use fakes::driver::{Driver, Wishes};
use fakes::ring::{DriverRing, Piece};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// Descriptors in each queue: few, so that everything wraps often.
const SIZE: u16 = 8;

const VERSION: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_INDEX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
const INDIRECT: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// Bits 24 to 49 and above belong to the transport (virtio 1.3 §2.2).
const TRANSPORT: u64 = !((1 << 24) - 1);

/// `VHOST_USER_F_PROTOCOL_FEATURES`: between the two sides of a socket, never seen by a driver.
const PROTOCOL: u64 = 1 << 30;

/// A device and its known request.
struct Subject {
    name: &'static str,
    queues: usize,
    /// The queue that the request goes to.
    queue: usize,
    serve: fn(UnixStream),
    request: fn(&mut DriverRing) -> Vec<Piece>,
    /// Bytes that the device writes.
    written: u32,
}

const SUBJECTS: &[Subject] = &[
    Subject {
        name: "rng",
        queues: 1,
        queue: 0,
        serve: |back| virtio::serve(back, Rng).unwrap(),
        request: |ring| vec![ring.room(16)],
        written: 16,
    },
    Subject {
        name: "block",
        queues: 2,
        queue: 1,
        serve: |back| {
            let image = tempfile::tempfile().unwrap();
            image.set_len(1 << 20).unwrap();
            let options = Options {
                format: Format::Raw,
                read_only: false,
                serial: "conformance".to_owned(),
                queues: 2,
            };
            virtio::serve(back, Block::new(image, Vec::new(), &options).unwrap()).unwrap();
        },
        // A read of the first sector, in as many pieces as it has parts.
        request: |ring| vec![ring.store(&[0; 16]), ring.room(512), ring.room(1)],
        written: 513,
    },
    Subject {
        name: "net",
        queues: 2,
        queue: 1,
        serve: |back| {
            let (socket, mut passt) = UnixStream::pair().unwrap();
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while passt.read(&mut bytes).is_ok_and(|count| count > 0) {}
            });
            let net = Net::new(Backend::Stream(socket), [2; 6], None).unwrap();
            virtio::serve(back, net).unwrap();
        },
        request: |ring| {
            let mut arp = [0; 72];
            arp[24..26].copy_from_slice(&[8, 6]);
            vec![ring.store(&arp[..12]), ring.store(&arp[12..])]
        },
        written: 0,
    },
    Subject {
        name: "vsock",
        queues: 3,
        queue: 1,
        serve: |back| {
            let folder = tempfile::tempdir().unwrap();
            let door = UnixListener::bind(folder.path().join("vsock.sock")).unwrap();
            let vsock = Vsock::new(3, door, folder.path().to_owned()).unwrap();
            virtio::serve(back, vsock).unwrap();
        },
        // A reset of a connection that is not there, which is never answered.
        request: |ring| {
            let mut packet = [0; 44];
            (packet[0], packet[8], packet[28], packet[30]) = (3, 2, 1, 3);
            vec![ring.store(&packet[..20]), ring.store(&packet[20..])]
        },
        written: 0,
    },
];

impl Subject {
    fn drive(&self, features: u64) -> Driver {
        let (front, back) = UnixStream::pair().unwrap();
        let serve = self.serve;
        thread::spawn(move || serve(back));
        let wishes = Wishes {
            queues: self.queues,
            size: SIZE,
            features,
        };
        Driver::new(front, wishes)
    }

    /// Makes the request once and checks the answer.
    fn ask(&self, ring: &mut DriverRing, pieces: &[Piece]) {
        let head = ring.offer(pieces).unwrap();
        ring.kick();
        assert_eq!(ring.wait(), (head, self.written), "{}", self.name);
    }
}

#[test]
fn features_are_those_of_the_standard_and_each_may_be_left_out() {
    for subject in SUBJECTS {
        let offered = subject.drive(u64::MAX).features();
        assert_ne!(offered & VERSION, 0, "{}", subject.name);
        let known = VERSION | EVENT_INDEX | INDIRECT | PROTOCOL;
        assert_eq!(offered & TRANSPORT & !known, 0, "{}", subject.name);
        for taken in [VERSION, VERSION | EVENT_INDEX, VERSION | INDIRECT, offered] {
            let mut driver = subject.drive(taken);
            assert_eq!(driver.features() & !PROTOCOL, taken & !PROTOCOL);
            let ring = &mut driver.rings[subject.queue];
            let pieces = (subject.request)(ring);
            subject.ask(ring, &pieces);
        }
    }
}

#[test]
fn indices_wrap_and_chains_may_be_indirect() {
    for subject in SUBJECTS {
        let mut driver = subject.drive(u64::MAX);
        let ring = &mut driver.rings[subject.queue];
        let pieces = (subject.request)(ring);
        // More than an index of 16 bits counts.
        for _ in 0..66_000 {
            subject.ask(ring, &pieces);
        }
        let head = ring.offer_indirect(&pieces);
        ring.kick();
        assert_eq!(ring.wait(), (head, subject.written), "{}", subject.name);
    }
}

#[test]
fn kick_is_asked_for_at_the_next_request() {
    for subject in SUBJECTS {
        let mut driver = subject.drive(u64::MAX);
        let ring = &mut driver.rings[subject.queue];
        let pieces = (subject.request)(ring);
        for wanted in 1..20_u16 {
            subject.ask(ring, &pieces);
            // `avail_event`, behind the used ring (virtio 1.3 §2.7.10): written before the device sleeps.
            let place = ring.used + 4 + 8 * u64::from(SIZE);
            let deadline = Instant::now() + Duration::from_secs(10);
            while ring.read(place, 2) != wanted.to_le_bytes() {
                assert!(Instant::now() < deadline, "{} after {wanted}", subject.name);
                thread::yield_now();
            }
        }
    }
}

#[test]
fn stopped_queue_goes_on_and_reset_queue_starts_afresh() {
    for subject in SUBJECTS {
        let mut driver = subject.drive(u64::MAX);
        let pieces = (subject.request)(&mut driver.rings[subject.queue]);
        for base in 1..4_u16 {
            subject.ask(&mut driver.rings[subject.queue], &pieces);
            assert_eq!(driver.stop_ring(subject.queue), u32::from(base));
            driver.start_ring(subject.queue, base);
        }
        subject.ask(&mut driver.rings[subject.queue], &pieces);
        driver.stop_ring(subject.queue);
        driver.rings[subject.queue].reset();
        driver.start_ring(subject.queue, 0);
        subject.ask(&mut driver.rings[subject.queue], &pieces);
    }
}

#[test]
fn chain_that_breaks_the_rules_stops_its_queue_until_a_reset() {
    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    let piece = |address, length| Piece {
        address,
        length,
        writable: false,
    };
    /// What is wrong, and the chain at descriptor 0.
    type Wrong = (&'static str, fn(&DriverRing, fn(u64, u32) -> Piece));
    let wrongs: [Wrong; 4] = [
        ("loop", |ring, piece| {
            ring.describe(0, piece(ring.table, 4), NEXT, 0);
        }),
        ("outside of memory", |ring, piece| {
            ring.describe(0, piece(1 << 40, 4), 0, 0);
        }),
        ("across the end of memory", |ring, piece| {
            ring.describe(0, piece(ring.table, u32::MAX), 0, 0);
        }),
        ("room before bytes", |ring, piece| {
            ring.describe(0, piece(ring.table, 4), WRITE | NEXT, 1);
            ring.describe(1, piece(ring.table, 4), 0, 0);
        }),
    ];
    let piece: fn(u64, u32) -> Piece = piece;
    for subject in SUBJECTS {
        let mut driver = subject.drive(u64::MAX);
        let pieces = (subject.request)(&mut driver.rings[subject.queue]);
        for (what, wrong) in wrongs {
            let ring = &mut driver.rings[subject.queue];
            wrong(ring, piece);
            ring.publish(0);
            ring.kick();
            // The front end can still stop the queue: the daemon lives.
            driver.stop_ring(subject.queue);
            let ring = &mut driver.rings[subject.queue];
            assert_eq!(ring.take(), None, "{}: {what} was served", subject.name);
            ring.reset();
            driver.start_ring(subject.queue, 0);
            subject.ask(&mut driver.rings[subject.queue], &pieces);
            driver.stop_ring(subject.queue);
            driver.rings[subject.queue].reset();
            driver.start_ring(subject.queue, 0);
        }
    }
}

#[test]
fn configuration_space_ends_in_zeroes() {
    for subject in SUBJECTS {
        let mut driver = subject.drive(u64::MAX);
        let (short, long) = (driver.config(8), driver.config(256));
        assert_eq!(short, long[..8], "{}", subject.name);
        assert_eq!(long[128..], [0; 128], "{}", subject.name);
    }
}
