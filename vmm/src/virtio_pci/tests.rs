//! The transport as a driver sees it: discovery, negotiation, start, interrupts, reset, and what it must survive.

use std::sync::Mutex;

use proptest::prelude::*;
use spec::units::Mib;

use super::*;
use crate::interrupt::recorder::Recorder;
use crate::memory::Memory;
use crate::pci::bus::{BAR_BYTES, bar_address, lock};
use crate::virtio_device::{F_EVENT_IDX, F_VERSION_1};

#[derive(Default)]
struct Log {
    started: Vec<(u64, usize)>,
    resets: usize,
    pauses: usize,
    positions: Vec<u16>,
    calls: Vec<EventFd>,
    kicks: Vec<EventFd>,
}

/// A device with two queues that remembers what the transport told it.
struct Remembers(Arc<Mutex<Log>>);

impl VirtioDevice for Remembers {
    fn kind(&self) -> u16 {
        4
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![64, 64]
    }
    fn features(&self) -> u64 {
        F_EVENT_IDX | 0b100
    }
    fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(u8::try_from(offset & 0xff).unwrap());
    }
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}
    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let mut log = lock(&self.0);
        log.started
            .push((activation.features, activation.queues.len()));
        log.positions = activation.queues.iter().map(|queue| queue.next).collect();
        for queue in activation.queues {
            log.calls.push(queue.call);
            log.kicks.push(queue.kick);
        }
        Ok(())
    }
    fn pause(&mut self) -> io::Result<Vec<(u16, u16)>> {
        lock(&self.0).pauses += 1;
        Ok(vec![(0, 7), (1, 9)])
    }
    fn reset(&mut self) {
        lock(&self.0).resets += 1;
    }
}

/// Notification addresses that are attached now.
#[derive(Default)]
struct Attached(Mutex<Vec<u64>>);

impl Notifier for Attached {
    fn attach(&self, at: u64, _kick: &EventFd) -> io::Result<()> {
        lock(&self.0).push(at);
        Ok(())
    }
    fn detach(&self, at: u64, _kick: &EventFd) -> io::Result<()> {
        lock(&self.0).retain(|attached| *attached != at);
        Ok(())
    }
}

struct Driver {
    function: VirtioPci,
    log: Arc<Mutex<Log>>,
    attached: Arc<Attached>,
    recorder: Arc<Recorder>,
}

impl Driver {
    fn new() -> Self {
        let (recorder, lines) = Recorder::with_lines();
        let attached = Arc::new(Attached::default());
        let notifier = Arc::clone(&attached) as Arc<dyn Notifier>;
        let wiring = Wiring {
            memory: Memory::for_tests(Mib(64)),
            lines,
            notifier,
        };
        let log = Arc::new(Mutex::new(Log::default()));
        let device = Box::new(Remembers(Arc::clone(&log)));
        let mut function = VirtioPci::new(device, bar_address(1), wiring).unwrap();
        function.write_config(4, &[6, 0]);
        Self {
            function,
            log,
            attached,
            recorder,
        }
    }

    fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.function.read_bar(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.function.write_bar(offset, &value.to_le_bytes());
    }

    fn status(&mut self, status: u8) -> u8 {
        self.function.write_bar(20, &[status]);
        u8::try_from(self.read(20) & 0xff).unwrap()
    }

    fn accept(&mut self, features: u64) {
        for (select, half) in [(0, features), (1, features >> 32)] {
            self.write(8, select);
            self.write(12, u32::try_from(half & 0xffff_ffff).unwrap());
        }
    }

    fn queue(&mut self, index: u16, at: u32) {
        self.function.write_bar(22, &index.to_le_bytes());
        self.function.write_bar(26, &(index + 1).to_le_bytes());
        for (offset, address) in [(32, at), (40, at + 0x1000), (48, at + 0x2000)] {
            self.write(offset, address);
        }
        self.function.write_bar(28, &[1, 0]);
    }

    fn bring_up(&mut self) -> u8 {
        self.status(1);
        self.status(3);
        self.accept(F_VERSION_1 | F_EVENT_IDX);
        self.status(11);
        self.queue(0, 0x10_0000);
        self.queue(1, 0x20_0000);
        self.status(15)
    }
}

#[test]
fn a_driver_brings_the_device_up_and_down() {
    let mut driver = Driver::new();
    assert_eq!(driver.bring_up(), 15);
    assert_eq!(lock(&driver.log).started, [(F_VERSION_1 | F_EVENT_IDX, 2)]);
    let notify = bar_address(1) + NOTIFY;
    assert_eq!(*lock(&driver.attached.0), [notify, notify + NOTIFY_STRIDE]);
    assert_eq!(driver.status(0), 0);
    assert_eq!(lock(&driver.log).resets, 1);
    assert!(lock(&driver.attached.0).is_empty());
    assert_eq!(driver.bring_up(), 15);
    assert_eq!(lock(&driver.log).started.len(), 2);
}

#[test]
fn the_device_interrupts_through_the_vector_of_the_queue() {
    let mut driver = Driver::new();
    let control = driver.function.msix_control;
    driver
        .function
        .write_config(control, &0x8000_u16.to_le_bytes());
    for (word, value) in [(0, 0xfee0_0000), (4, 0), (8, 0x33), (12, 0)] {
        driver.write(TABLE + 2 * 16 + word, value);
    }
    driver.bring_up();
    let line = *lock(&driver.recorder.connected)
        .first_key_value()
        .unwrap()
        .0;
    assert_eq!(line, 2, "the second queue's vector is the third line");
    lock(&driver.log).calls[1].write(7).unwrap();
    assert_eq!(
        driver
            .function
            .msix
            .line(2)
            .unwrap()
            .event()
            .read()
            .unwrap(),
        7
    );
}

#[test]
fn a_kick_before_anyone_listens_is_kept() {
    let mut driver = Driver::new();
    driver.write(NOTIFY + NOTIFY_STRIDE, 1);
    driver.bring_up();
    assert_eq!(lock(&driver.log).kicks[1].read().unwrap(), 1);
}

#[test]
fn features_that_were_not_offered_are_not_agreed_on() {
    let mut driver = Driver::new();
    driver.status(3);
    driver.accept(F_VERSION_1 | 0b1000);
    assert_eq!(driver.status(11), 3);
    driver.accept(F_EVENT_IDX);
    assert_eq!(driver.status(11), 3, "the modern transport is not optional");
    driver.accept(F_VERSION_1 | 0b100);
    assert_eq!(driver.status(11), 11);
}

/// Found by fuzzing: the bits of the status were taken away, and with them what keeps features from changing.
#[test]
fn features_stay_until_a_reset() {
    let mut driver = Driver::new();
    driver.bring_up();
    assert_eq!(driver.status(3), 15, "only a reset takes bits away");
    driver.accept(F_VERSION_1 | 0b1000);
    driver.function.pause().unwrap();
    driver.function.resume();
    let agreed = (F_VERSION_1 | F_EVENT_IDX, 2);
    assert_eq!(lock(&driver.log).started, [agreed, agreed]);
}

#[test]
fn a_ring_outside_memory_makes_the_device_ask_for_a_reset() {
    for at in [0x3ff_f000, 0x10_0008, 0xf000_0000] {
        let mut driver = Driver::new();
        driver.status(3);
        driver.accept(F_VERSION_1);
        driver.status(11);
        driver.queue(0, at);
        assert_eq!(driver.status(15), 15 | 64, "{at:#x}");
        assert!(lock(&driver.log).started.is_empty());
        assert_eq!(driver.read(STATUS) & 0xff, u32::from(STATUS_CONFIG_CHANGED));
        assert_eq!(
            driver.read(STATUS) & 0xff,
            0,
            "reading the status clears it"
        );
    }
}

#[test]
fn a_changed_configuration_is_a_new_generation() {
    let mut driver = Driver::new();
    driver.bring_up();
    let before = driver.read(21) & 0xff;
    driver.function.config_changed();
    assert_eq!(driver.read(21) & 0xff, before + 1);
}

#[test]
fn a_moved_window_takes_its_notifications_along() {
    let mut driver = Driver::new();
    driver.bring_up();
    let there = u32::try_from(bar_address(9)).unwrap();
    driver.function.write_config(0x10, &there.to_le_bytes());
    let notify = bar_address(9) + NOTIFY;
    assert_eq!(*lock(&driver.attached.0), [notify, notify + NOTIFY_STRIDE]);
    driver.function.write_config(4, &[0, 0]);
    assert!(lock(&driver.attached.0).is_empty());
}

#[test]
fn an_unplugged_device_leaves_nothing_attached() {
    let mut driver = Driver::new();
    driver.bring_up();
    assert!(driver.function.is_in_use());
    driver.function.unplug();
    assert!(lock(&driver.attached.0).is_empty());
    assert!(lock(&driver.recorder.connected).is_empty());
    driver.write(TABLE, 1);
    driver.write(NOTIFY, 1);
}

#[test]
fn a_paused_device_goes_on_where_it_stopped() {
    let mut driver = Driver::new();
    driver.bring_up();
    driver.function.pause().unwrap();
    driver.function.pause().unwrap();
    assert_eq!(lock(&driver.log).pauses, 1, "it stands still already");
    driver.function.resume();
    driver.function.resume();
    assert_eq!(lock(&driver.log).positions, [7, 9]);
    assert_eq!(lock(&driver.log).started.len(), 2);
    assert_eq!(lock(&driver.log).resets, 0);
}

#[test]
fn a_restored_function_is_the_one_that_was_saved() {
    let mut before = Driver::new();
    let control = before.function.msix_control;
    before
        .function
        .write_config(control, &0x8000_u16.to_le_bytes());
    for (word, value) in [(0, 0xfee0_0000), (4, 0), (8, 0x33), (12, 0)] {
        before.write(TABLE + 2 * 16 + word, value);
    }
    before.bring_up();
    before.function.pause().unwrap();
    let mut after = Driver::new();
    assert_eq!(after.function.restore(before.function.save()), None);
    assert_eq!(lock(&after.log).positions, [7, 9]);
    assert_eq!(after.status(15), 15);
    assert_eq!(
        after.function.config().bytes(),
        before.function.config().bytes()
    );
    let connected = |driver: &Driver| lock(&driver.recorder.connected).clone();
    assert_eq!(connected(&after), connected(&before));
    assert_eq!(*lock(&after.attached.0), *lock(&before.attached.0));
    // Whatever was on its way comes once more.
    assert_eq!(lock(&after.log).kicks[1].read().unwrap(), 1);
    assert_eq!(lock(&after.log).calls[1].read().unwrap(), 1);
}

#[test]
fn another_device_is_not_restored() {
    let mut before = Driver::new();
    before.bring_up();
    before.function.pause().unwrap();
    let mut state = serde_json::to_value(before.function.save()).unwrap();
    state["common"]["accepted"] = u64::MAX.into();
    let state = serde_json::from_value(state).unwrap();
    let mut after = Driver::new();
    assert!(after.function.restore(state).is_some());
    assert!(lock(&after.log).started.is_empty());
}

proptest! {
    #[test]
    fn no_access_is_too_strange(
        accesses in prop::collection::vec(
            (any::<bool>(), 0..u64::from(BAR_BYTES) + 16, any::<u64>(), 1_usize..=8), 0..200),
        config in prop::collection::vec((0_usize..4100, any::<u32>()), 0..50),
    ) {
        let mut driver = Driver::new();
        driver.bring_up();
        for (write, offset, value, width) in accesses {
            let mut data = value.to_le_bytes();
            if write {
                driver.function.write_bar(offset, &data[..width]);
            } else {
                driver.function.read_bar(offset, &mut data[..width]);
            }
        }
        for (offset, value) in config {
            driver.function.write_config(offset, &value.to_le_bytes());
        }
        driver.status(0);
        let reset = lock(&driver.log).resets;
        prop_assert!(reset >= 1 && lock(&driver.attached.0).is_empty());
    }
}
