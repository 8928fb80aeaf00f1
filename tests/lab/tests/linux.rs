//! Termina's kernel on `crosvm run`, on real KVM, with a shell on its console that does what it is told.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use lab::daemon::Daemon;
use lab::engine::{Engine, Plan};
use lab::place;
use spec::control::{Reply, Request};
use spec::device::DeviceSpec;
use spec::end::EngineEnd;
use spec::units::Mib;
use spec::vm::Function;

/// A machine with Termina's kernel and nothing to start.
fn termina(line: &str) -> Plan {
    let kernel = File::open(place::image("vmlinux")).unwrap();
    let line = line.to_owned();
    Plan::new(kernel).with(|spec| {
        spec.memory = Mib(512);
        spec.kernel.cmdline = line;
    })
}

/// A machine whose console is a shell.
fn shell() -> Plan {
    termina("quiet").initramfs(File::open(place::image("guest.cpio")).unwrap())
}

/// Has the guest's shell do `command` and returns what it printed.
fn done(engine: &mut Engine, command: &str) -> String {
    let before = engine.console().len();
    engine.type_line(command);
    engine.expect_after(before, "DONE 0");
    engine.console()[before..].to_owned()
}

fn rng() -> (Daemon, UnixStream) {
    Daemon::start(DeviceSpec::Rng, Vec::<OwnedFd>::new())
}

#[test]
fn a_kernel_without_a_root_panics_and_says_so() {
    let mut engine = termina("").start();
    engine.expect("Unable to mount root fs");
    assert_eq!(engine.end(), EngineEnd::Panic);
}

#[test]
fn probe() {
    let mut engine = termina("root=/dev/vda rootwait").start();
    engine.expect("Waiting for root device");
    eprintln!("{:?}\n{}", engine.info(), engine.console());
}

#[test]
fn a_shell_is_reached_within_the_budget_of_exits() {
    let mut engine = shell().start();
    engine.expect("INIT-REACHED");
    let info = engine.info();
    eprintln!("{info:?}\n{}", done(&mut engine, "dmesg; cat /proc/interrupts"));
    assert!(info.exits.total() <= 2000, "{info:?}");
    engine.type_line("poweroff -f");
    assert_eq!(engine.end(), EngineEnd::PowerOff);
}

#[test]
fn a_guest_can_restart() {
    let mut engine = shell().start();
    engine.expect("INIT-REACHED");
    engine.type_line("reboot -f");
    assert_eq!(engine.end(), EngineEnd::Reset);
}

#[test]
fn every_processor_comes_up() {
    let mut engine = shell().with(|spec| spec.vcpus = 2).start();
    engine.expect("INIT-REACHED");
    assert!(done(&mut engine, "nproc").contains('2'));
}

#[test]
fn memory_above_the_hole_is_there() {
    let mut engine = shell().with(|spec| spec.memory = Mib(4096)).start();
    engine.expect("INIT-REACHED");
    let total = done(&mut engine, "grep MemTotal /proc/meminfo");
    let kib: u64 = total.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(kib > 3_900_000, "{total}");
}

#[test]
fn the_power_button_is_a_key_press() {
    let mut engine = shell().start();
    engine.expect("INIT-REACHED");
    done(&mut engine, "(timeout 30 head -c 24 /dev/input/event0 >/tmp/key; echo PRESSED) &");
    assert_eq!(engine.ask(Request::PowerButton {}), Reply::Done {});
    engine.expect("PRESSED");
    // struct input_event: the type EV_KEY at 16, the code KEY_POWER (116) at 18.
    assert!(done(&mut engine, "od -An -tu2 -j16 -N4 /tmp/key").contains("1   116"));
}

#[test]
fn a_daemon_gives_the_guest_random_numbers() {
    let (_daemon, socket) = rng();
    let mut engine = shell().device("rng", Function::Rng {}, socket).start();
    engine.expect("INIT-REACHED");
    assert!(done(&mut engine, "cat /sys/class/misc/hw_random/rng_current").contains("virtio"));
    assert!(done(&mut engine, "head -c 4096 /dev/hwrng | wc -c").contains("4096"));
}

#[test]
fn the_balloon_takes_and_gives_memory() {
    let mut engine = shell().start();
    engine.expect("INIT-REACHED");
    assert_eq!(engine.ask(Request::Balloon { size: Mib(128) }), Reply::Done {});
    engine.wait_until(|info| info.ballooned == Mib(128));
    assert_eq!(engine.ask(Request::Balloon { size: Mib(0) }), Reply::Done {});
    engine.wait_until(|info| info.ballooned == Mib(0));
}

#[test]
fn free_pages_go_back_by_themselves() {
    let mut engine = shell().start();
    engine.expect("INIT-REACHED");
    done(&mut engine, "dd if=/dev/zero of=/tmp/big bs=1M count=128 2>/dev/null; rm /tmp/big");
    engine.wait_until(|info| info.given_back_bytes > 128 << 20);
}
