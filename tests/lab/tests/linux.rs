//! Termina's kernel and root file system on `crosvm run`, on real KVM, with a shell on the console that does what it
//! is told instead of Termina's init. Each device is exercised, and what is written is read back by its hash.

use std::os::unix::fs::FileExt as _;

use lab::daemon::Daemon;
use lab::place;
use lab::shell::{DISK, Guest, again, bare, disk, scratch};
use spec::control::{Event, Reply, Request};
use spec::device::DeviceSpec;
use spec::end::EngineEnd;
use spec::fd::InheritedFd;
use spec::units::Mib;
use spec::vm::{Device, Function};

#[test]
fn a_kernel_without_a_root_panics_and_says_so() {
    let mut engine = bare("").start();
    engine.expect("Unable to mount root fs");
    engine.expect_event(&Event::Panicked {});
    assert_eq!(engine.end(), EngineEnd::Panic);
}

#[test]
fn a_disk_that_was_cut_short_is_a_panic_and_no_hang() {
    let whole = std::fs::read(place::image("root.erofs")).unwrap();
    let half = scratch();
    half.write_all_at(&whole[..whole.len() / 2 / 512 * 512], 0)
        .unwrap();
    half.set_len(whole.len() as u64 / 2 / 512 * 512).unwrap();
    let (_daemon, socket) = disk(half, true);
    let plan = bare("quiet root=/dev/vda ro rootfstype=erofs init=/bin/sh");
    let mut engine = plan.device("root", DISK, socket).start();
    engine.expect_event(&Event::Panicked {});
    assert_eq!(engine.end(), EngineEnd::Panic);
}

#[test]
fn a_shell_is_reached_within_the_budget_of_exits() {
    let mut guest = Guest::start(|plan| plan);
    let info = guest.engine.info();
    println!("{info:?}");
    assert!(info.exits.total() <= 2000, "{info:?}");
    guest.engine.type_line("poweroff -f || busybox poweroff -f");
    assert_eq!(guest.engine.end(), EngineEnd::PowerOff);
}

#[test]
fn a_guest_can_restart() {
    let mut guest = Guest::start(|plan| plan);
    guest.engine.type_line("busybox reboot -f");
    assert_eq!(guest.engine.end(), EngineEnd::Reset);
}

#[test]
fn every_processor_comes_up() {
    let mut guest = Guest::start(|plan| plan.with(|spec| spec.vcpus = 2));
    assert!(guest.does("grep -c ^processor /proc/cpuinfo").contains('2'));
}

#[test]
fn memory_above_the_hole_is_there() {
    let mut guest = Guest::start(|plan| plan.with(|spec| spec.memory = Mib(4096)));
    let total = guest.does("grep MemTotal /proc/meminfo");
    let kib: u64 = total
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .unwrap();
    assert!(kib > 3_900_000, "{total}");
}

#[test]
fn the_power_button_is_a_key_press() {
    let mut guest = Guest::start(|plan| plan);
    // An open event device keeps what happens until it is read.
    guest.does("exec 9</dev/input/event0");
    assert_eq!(guest.engine.ask(Request::PowerButton {}), Reply::Done {});
    // struct input_event: the type EV_KEY at 16, the code KEY_POWER (116) at 18.
    let event = guest.does("head -c 24 <&9 | od -An -tu2 -j16 -N4");
    assert!(event.contains("1   116"), "{event}");
}

#[test]
fn a_daemon_gives_the_guest_random_numbers() {
    let (_daemon, socket) = Daemon::start(DeviceSpec::Rng, Vec::new());
    let mut guest = Guest::start(|plan| plan.device("rng", Function::Rng {}, socket));
    assert!(
        guest
            .does("cat /sys/class/misc/hw_random/rng_current")
            .contains("virtio")
    );
    assert!(
        guest
            .does("head -c 4096 /dev/hwrng | wc -c")
            .contains("4096")
    );
}

#[test]
fn what_is_written_to_a_disk_is_read_back() {
    let file = scratch();
    let (_daemon, socket) = disk(again(&file), false);
    let mut guest = Guest::start(|plan| plan.device("data", DISK, socket));
    guest.does("head -c 8388608 /dev/urandom >/tmp/a; dd if=/tmp/a of=/dev/vdb bs=64k conv=fsync");
    guest.does("echo 3 >/proc/sys/vm/drop_caches");
    let written = guest.hash_of("cat /tmp/a");
    assert_eq!(guest.hash_of("head -c 8388608 /dev/vdb"), written);
    assert_eq!(
        guest.hash_of("dd if=/dev/vdb bs=4k count=2048 iflag=direct 2>/dev/null"),
        written
    );
}

#[test]
fn a_disk_is_plugged_in_and_out_while_the_machine_runs() {
    let mut guest = Guest::start(|plan| plan);
    let (_daemon, socket) = disk(scratch(), false);
    let device = Device {
        name: "late".to_owned(),
        socket: InheritedFd(3),
        function: DISK,
        queue_size: 64,
    };
    let add = Request::AddDevice { device };
    assert_eq!(
        guest.engine.ask_with(add, Some(socket.into())),
        Reply::Done {}
    );
    guest.does("until [ -b /dev/vdb ]; do sleep 0.2; done");
    assert!(guest.does("cat /sys/block/vdb/size").contains("131072"));
    guest.does("dd if=/dev/zero of=/dev/vdb bs=1M count=4 conv=fsync");
    let remove = || Request::RemoveDevice {
        device: "late".to_owned(),
    };
    assert!(matches!(guest.engine.ask(remove()), Reply::Failed { .. }));
    guest.does("echo 1 >$(readlink -f /sys/block/vdb/device)/../remove");
    assert_eq!(guest.engine.ask(remove()), Reply::Done {});
    guest.does("[ ! -e /dev/vdb ]");
}

#[test]
fn a_killed_daemon_is_replaced_under_load() {
    let file = scratch();
    let (mut first, socket) = disk(again(&file), false);
    let mut guest = Guest::start(|plan| plan.device("data", DISK, socket));
    guest.does("head -c 4194304 /dev/urandom >/tmp/a");
    guest.does("{ (dd if=/tmp/a of=/dev/vdb bs=4k oflag=direct 2>/dev/null; echo WRIT''TEN) & }");
    first.kill();
    guest.engine.expect_event(&Event::DeviceLost {
        device: "data".to_owned(),
    });
    let (_second, socket) = disk(file, false);
    let reattach = Request::Reattach {
        device: "data".to_owned(),
    };
    assert_eq!(
        guest.engine.ask_with(reattach, Some(socket.into())),
        Reply::Done {}
    );
    guest.engine.expect("WRITTEN");
    let written = guest.hash_of("cat /tmp/a");
    assert_eq!(
        guest.hash_of("dd if=/dev/vdb bs=64k count=64 iflag=direct 2>/dev/null"),
        written
    );
}

#[test]
fn a_suspended_guest_goes_on_where_it_was() {
    let mut guest = Guest::start(|plan| plan.with(|spec| spec.vcpus = 2));
    for _ in 0..5 {
        assert_eq!(guest.engine.ask(Request::Suspend {}), Reply::Done {});
        let before = guest.engine.console().len();
        guest.engine.type_line("echo AW''AKE");
        std::thread::park_timeout(std::time::Duration::from_millis(300));
        assert_eq!(
            guest.engine.console().len(),
            before,
            "a suspended guest printed"
        );
        assert_eq!(guest.engine.ask(Request::Resume {}), Reply::Done {});
        guest.engine.expect_after(before, "AWAKE");
    }
}

#[test]
fn the_balloon_takes_and_gives_memory() {
    let mut guest = Guest::start(|plan| plan);
    assert_eq!(
        guest.engine.ask(Request::Balloon { size: Mib(128) }),
        Reply::Done {}
    );
    guest.engine.wait_until(|info| info.ballooned == Mib(128));
    assert_eq!(
        guest.engine.ask(Request::Balloon { size: Mib(0) }),
        Reply::Done {}
    );
    guest.engine.wait_until(|info| info.ballooned == Mib(0));
}

#[test]
fn free_pages_go_back_by_themselves() {
    let mut guest = Guest::start(|plan| plan);
    guest.does("dd if=/dev/zero of=/tmp/big bs=1M count=128 2>/dev/null");
    let full = shared_mib();
    guest.does("rm /tmp/big");
    let before = guest.engine.info().given_back_bytes;
    // The host has the memory again, not only the guest's word for it.
    guest.engine.wait_until(|info| {
        info.given_back_bytes > before + (100 << 20) && shared_mib() + 100 < full
    });
}

/// Returns how much shared memory this host has in use, of which guest memory is nearly all.
fn shared_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with("Shmem:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap();
    kib / 1024
}
