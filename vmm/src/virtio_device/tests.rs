//! The rules of virtio 1.3 that every device must keep, on the two that this process serves itself; those of the daemons are in
//! `vmm/tests/conformance.rs`.

use std::fs::File;

use fakes::ring::{DriverRing, NEXT, Piece};
use spec::units::Mib;

use super::*;
use crate::balloon::{Balloon, Gauge};
use crate::console::Console;

const SIZE: u16 = 8;
const RING_BYTES: u64 = 1 << 20;
const START: u64 = 1 << 20;

/// A device and a request whose answer is known.
struct Subject {
    name: &'static str,
    make: fn() -> Box<dyn VirtioDevice>,
    queue: usize,
    request: fn(&mut DriverRing) -> Vec<Piece>,
    written: u32,
}

fn console() -> Box<dyn VirtioDevice> {
    let output = File::options().write(true).open("/dev/null").unwrap();
    let input = File::open("/dev/zero").unwrap();
    Box::new(Console::new(output.into(), Some(input.into())))
}

fn balloon() -> Box<dyn VirtioDevice> {
    Box::new(Balloon::new(Gauge::default().into()))
}

/// The number of a page in which nothing is.
fn page(ring: &mut DriverRing) -> Vec<Piece> {
    let number = u32::try_from((48 << 20) / 4096).unwrap().to_le_bytes();
    vec![ring.store(&number[..3]), ring.store(&number[3..])]
}

const SUBJECTS: [Subject; 5] = [
    Subject {
        name: "console's input",
        make: console,
        queue: 0,
        request: |ring| vec![ring.room(100), ring.room(28)],
        written: 128,
    },
    Subject {
        name: "console's output",
        make: console,
        queue: 1,
        request: |ring| vec![ring.store(b"he"), ring.store(b"llo")],
        written: 0,
    },
    Subject {
        name: "balloon's inflation",
        make: balloon,
        queue: 0,
        request: page,
        written: 0,
    },
    Subject {
        name: "balloon's deflation",
        make: balloon,
        queue: 1,
        request: page,
        written: 0,
    },
    Subject {
        name: "balloon's reports",
        make: balloon,
        queue: 2,
        request: |_ring| {
            vec![Piece {
                address: 40 << 20,
                length: 1 << 20,
                writable: true,
            }]
        },
        written: 0,
    },
];

impl ReadyQueue {
    /// Returns queue `index` as the driver of `ring` set it up, of which `next` comes next.
    pub(crate) fn of(index: u16, ring: &DriverRing, next: u16) -> Self {
        Self {
            index,
            size: ring.size,
            descriptors: ring.table,
            available: ring.available,
            used: ring.used,
            next,
            kick: ring.kick.try_clone().unwrap(),
            call: ring.call.try_clone().unwrap(),
        }
    }
}

struct Guest {
    device: Box<dyn VirtioDevice>,
    memory: Memory,
    rings: Vec<DriverRing>,
    features: u64,
}

impl Guest {
    fn new(subject: &Subject, features: u64) -> Self {
        let device = (subject.make)();
        let memory = Memory::for_tests(Mib(64));
        let rings = (0..device.queue_sizes().len() as u64).map(|index| {
            let start = START + index * RING_BYTES;
            DriverRing::new(memory.guest(), start, RING_BYTES, SIZE)
        });
        let mut guest = Self {
            rings: rings.collect(),
            features: (device.features() | F_VERSION_1) & features,
            device,
            memory,
        };
        guest.activate(&[]);
        guest
    }

    fn activate(&mut self, positions: &[(u16, u16)]) {
        let mut queues = Vec::new();
        for (index, ring) in (0..).zip(&mut self.rings) {
            ring.use_event_index(self.features & F_EVENT_IDX != 0);
            let position = positions.iter().find(|(queue, _)| *queue == index);
            let next = position.map_or(0, |(_, next)| *next);
            queues.push(ReadyQueue::of(index, ring, next));
        }
        let (features, memory) = (self.features, self.memory.clone());
        let activation = Activation {
            features,
            memory,
            queues,
        };
        self.device.activate(activation).unwrap();
    }

    fn ask(&mut self, subject: &Subject, pieces: &[Piece]) {
        let ring = &mut self.rings[subject.queue];
        let head = ring.offer(pieces).unwrap();
        ring.kick();
        assert_eq!(ring.wait(), (head, subject.written), "{}", subject.name);
    }

    fn request(&mut self, subject: &Subject) -> Vec<Piece> {
        (subject.request)(&mut self.rings[subject.queue])
    }

    /// Resets the device and sets it up again, from the beginning.
    fn reset(&mut self) {
        self.device.reset();
        self.rings.iter_mut().for_each(DriverRing::reset);
        self.activate(&[]);
    }
}

#[test]
fn each_feature_may_be_left_out() {
    for subject in &SUBJECTS {
        let offered = (subject.make)().features();
        for taken in [
            F_VERSION_1,
            F_VERSION_1 | F_EVENT_IDX,
            offered | F_VERSION_1,
        ] {
            let mut guest = Guest::new(subject, taken);
            let pieces = guest.request(subject);
            guest.ask(subject, &pieces);
        }
    }
}

#[test]
fn indices_wrap_and_chains_may_be_indirect() {
    for subject in &SUBJECTS {
        let mut guest = Guest::new(subject, u64::MAX);
        guest.device.pause().unwrap();
        let near_the_end = u16::MAX - 20;
        for ring in &mut guest.rings {
            ring.begin_at(near_the_end);
        }
        guest.activate(&[(0, near_the_end), (1, near_the_end), (2, near_the_end)]);
        let pieces = guest.request(subject);
        for _ in 0..40 {
            guest.ask(subject, &pieces);
        }
        if guest.features & F_INDIRECT != 0 {
            let ring = &mut guest.rings[subject.queue];
            let head = ring.offer_indirect(&pieces);
            ring.kick();
            assert_eq!(ring.wait(), (head, subject.written), "{}", subject.name);
        }
    }
}

#[test]
fn paused_device_goes_on_and_reset_device_starts_afresh() {
    for subject in &SUBJECTS {
        let mut guest = Guest::new(subject, u64::MAX);
        let pieces = guest.request(subject);
        for base in 1..4_u16 {
            guest.ask(subject, &pieces);
            let positions = guest.device.pause().unwrap();
            let own = u16::try_from(subject.queue).unwrap();
            assert!(
                positions.contains(&(own, base)),
                "{}: {positions:?}",
                subject.name
            );
            guest.activate(&positions);
        }
        guest.reset();
        guest.ask(subject, &pieces);
    }
}

#[test]
fn ring_that_breaks_the_rules_is_not_served_until_a_reset() {
    /// What is wrong, and how it is made so.
    type Wrong = (&'static str, fn(&mut DriverRing, Piece));
    let wrongs: [Wrong; 3] = [
        ("loop", |ring, piece| {
            ring.describe(0, piece, NEXT, 0);
            ring.publish(0);
        }),
        ("next descriptor that is not there", |ring, piece| {
            ring.describe(0, piece, NEXT, SIZE);
            ring.publish(0);
        }),
        ("more requests than there is room for", |ring, piece| {
            ring.describe(0, piece, 0, 0);
            ring.set_available_index(2 * SIZE);
        }),
    ];
    for subject in &SUBJECTS {
        for (what, wrong) in wrongs {
            let mut guest = Guest::new(subject, u64::MAX);
            let pieces = guest.request(subject);
            let ring = &mut guest.rings[subject.queue];
            wrong(ring, pieces[0]);
            ring.kick.write(1).unwrap();
            // Neither hangs: the device's thread ends when it is told to.
            guest.device.pause().unwrap();
            let taken = guest.rings[subject.queue].take();
            assert_eq!(taken, None, "{}: {what} was served", subject.name);
            guest.reset();
            guest.ask(subject, &pieces);
        }
    }
}
