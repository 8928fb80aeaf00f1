//! What `crosvm run` does for a guest of a few instructions, on real KVM ioctls: ends, ports, configuration space,
//! bad input. Each test is one process from its specification to its exit code.

use std::os::unix::net::UnixStream;

use lab::engine::{Plan, file};
use lab::guest::{Program, elf};
use lab::place;
use spec::control::{Event, Reply, Request};
use spec::end::EngineEnd;
use spec::fd::InheritedFd;
use spec::units::Mib;
use spec::vm::Function;

const SERIAL: u16 = 0x3f8;
const CONFIG: u64 = 0xe000_0000;
const SLOT: u64 = 0x8000;

/// A machine with early output, so that a guest can print without a driver.
fn printing(program: Program) -> Plan {
    Plan::new(program.kernel()).with(|spec| spec.kernel.cmdline = "earlyprintk=serial".to_owned())
}

#[test]
fn power_off_ends_with_0() {
    let mut engine = Plan::new(Program::new().power_off().kernel()).start();
    assert_eq!(engine.end(), EngineEnd::PowerOff);
}

#[test]
fn a_reset_ends_with_10() {
    let mut engine = Plan::new(Program::new().out(0x600, 1).kernel()).start();
    assert_eq!(engine.end(), EngineEnd::Reset);
}

#[test]
fn a_panic_is_told_and_ends_with_11() {
    let mut engine = Plan::new(Program::new().out(0x505, 1).out(0x600, 1).kernel()).start();
    engine.expect_event(&Event::Running {});
    engine.expect_event(&Event::Panicked {});
    assert_eq!(engine.end(), EngineEnd::Panic);
}

#[test]
fn a_triple_fault_ends_with_12() {
    let mut engine = Plan::new(Program::new().crash().kernel()).start();
    assert_eq!(engine.end(), EngineEnd::Crash);
}

#[test]
fn early_output_reaches_the_console() {
    let mut engine = printing(Program::new().print(SERIAL, "hello").power_off()).start();
    engine.expect("hello");
    assert_eq!(engine.end(), EngineEnd::PowerOff);
}

#[test]
fn configuration_space_is_read_without_exits() {
    let program = (0..500).fold(Program::new(), |program, _| {
        program.print_memory(CONFIG, 0x80)
    });
    let program = program
        .print_memory(CONFIG, SERIAL)
        .count_for_ever(0x10_0000);
    let mut engine = printing(program).start();
    engine.expect("\u{fffd}\u{fffd}\u{fffd})");
    let exits = engine.info().exits;
    assert_eq!((exits.pci_config, exits.mmio), (0, 0), "{exits:?}");
}

#[test]
fn a_write_to_configuration_space_is_seen_by_the_next_read() {
    let bar = CONFIG + SLOT + 0x10;
    let program = Program::new()
        .store(bar, u32::MAX)
        .print_memory(bar, SERIAL)
        .print(SERIAL, "!");
    let mut engine = printing(program.power_off()).start();
    engine.expect("!");
    assert_eq!(engine.end(), EngineEnd::PowerOff);
    assert!(
        engine.console().starts_with("\u{4}\u{fffd}"),
        "{:?}",
        engine.console()
    );
}

#[test]
fn nobody_answers_where_nobody_is() {
    let program = Program::new()
        .copy_port(0x70, SERIAL)
        .print_memory(0xd000_0000, SERIAL)
        .store(0xd000_0000, 1)
        .out(0x70, 1)
        .print(SERIAL, "!")
        .power_off();
    let mut engine = printing(program).start();
    assert_eq!(engine.end(), EngineEnd::PowerOff);
    assert_eq!(
        engine.console(),
        "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}!"
    );
}

#[test]
fn a_suspended_machine_stands_still_and_goes_on() {
    let mut engine = Plan::new(Program::new().count_for_ever(0x10_0000).kernel()).start();
    for _ in 0..20 {
        assert_eq!(engine.ask(Request::Suspend {}), Reply::Done {});
        assert!(engine.info().suspended);
        assert_eq!(engine.ask(Request::Resume {}), Reply::Done {});
        assert!(!engine.info().suspended);
    }
    assert_eq!(engine.ask(Request::Suspend {}), Reply::Done {});
    assert_eq!(engine.ask(Request::Kill {}), Reply::Done {});
    assert_eq!(engine.end(), EngineEnd::PowerOff);
}

#[test]
fn several_processors_suspend_together() {
    let plan = Plan::new(Program::new().count_for_ever(0x10_0000).kernel());
    let mut engine = plan.with(|spec| spec.vcpus = 4).start();
    for _ in 0..20 {
        assert_eq!(engine.ask(Request::Suspend {}), Reply::Done {});
        assert_eq!(engine.ask(Request::Resume {}), Reply::Done {});
    }
    assert_eq!(engine.ask(Request::Kill {}), Reply::Done {});
    assert_eq!(engine.end(), EngineEnd::PowerOff);
}

#[test]
fn the_machine_outlives_its_control_socket() {
    let plan = printing(Program::new().print(SERIAL, "up").count_for_ever(0x10_0000));
    let (_, unused) = UnixStream::pair().unwrap();
    drop(unused);
    let mut engine = plan.start();
    engine.expect("up");
    engine.close_control();
    std::thread::park_timeout(std::time::Duration::from_millis(200));
    assert!(engine.is_running(), "{}", engine.log());
}

#[test]
fn a_request_for_what_is_not_there_changes_nothing() {
    let plan = Plan::new(Program::new().count_for_ever(0x10_0000).kernel());
    let mut engine = plan.with(|spec| spec.options.give_back = false).start();
    for request in [
        Request::Balloon { size: Mib(1) },
        Request::Reattach {
            device: "root".to_owned(),
        },
        Request::RemoveDevice {
            device: "root".to_owned(),
        },
        Request::ConfigChanged {
            device: "root".to_owned(),
        },
    ] {
        assert!(matches!(engine.ask(request), Reply::Failed { .. }));
    }
    assert!(!engine.info().suspended);
}

/// One kind of bad input: what it is, how the machine ends, what is said.
type Bad = (Plan, EngineEnd, &'static str);

#[test]
fn bad_input_is_one_error_and_one_exit_code() {
    let good = || Plan::new(Program::new().power_off().kernel());
    let socket = || UnixStream::pair().unwrap().0;
    let cases: Vec<Bad> = vec![
        (
            good().with(|spec| spec.vcpus = 0),
            EngineEnd::Spec,
            "vcpus is 0",
        ),
        (
            good().with(|spec| spec.version = 9),
            EngineEnd::Spec,
            "version is 9",
        ),
        (
            good().with(|spec| spec.kernel.image = InheritedFd(900)),
            EngineEnd::Descriptor,
            "cannot use kernel.image: cannot inspect descriptor 900",
        ),
        (
            good().with(|spec| std::mem::swap(&mut spec.control, &mut spec.kernel.image)),
            EngineEnd::Descriptor,
            "is not a file open for reading",
        ),
        (
            Plan::new(file(b"#!/bin/sh\n")),
            EngineEnd::Kernel,
            "uncompressed 64-bit ELF vmlinux",
        ),
        (
            Plan::new(file(&elf(0x100_0000, &[0; 64])[..130])),
            EngineEnd::Kernel,
            "cannot load",
        ),
        (
            Plan::new(file(&elf(0x300_0000, &[0; 64]))),
            EngineEnd::Kernel,
            "enters at 0x3000000",
        ),
        (
            good().with(|spec| spec.kernel.cmdline = "x".repeat(2040)),
            EngineEnd::Kernel,
            "at most 2047 fit",
        ),
        (
            good().with(|spec| spec.memory = Mib(1 << 20)),
            EngineEnd::Memory,
            "this host has",
        ),
        (
            good().device("gone", Function::Rng {}, socket()),
            EngineEnd::Device,
            "the daemon of device gone failed",
        ),
    ];
    for (plan, end, said) in cases {
        let mut engine = plan.start();
        assert_eq!(engine.end(), end, "{}", engine.log());
        assert!(
            engine.log_to_end().contains(said),
            "no {said:?} in {}",
            engine.log()
        );
        assert_eq!(engine.log().matches("ERROR").count(), 1, "{}", engine.log());
    }
}

#[test]
fn fields_that_do_not_exist_or_contradict_are_one_error() {
    let good = || Plan::new(Program::new().power_off().kernel());
    let socket = || UnixStream::pair().unwrap().0;
    let same_name =
        good()
            .device("a", Function::Rng {}, socket())
            .device("a", Function::Rng {}, socket());
    let same_descriptor = good().with(|spec| spec.control = spec.kernel.image);
    let cases = [
        (
            good().with_text(|text| text.replace("\"vcpus\":1", "\"vcpus\":1,\"cpus\":1")),
            "unknown field `cpus`",
        ),
        (
            good().with_text(|text| text.replace("\"vcpus\":1,", "")),
            "missing field `vcpus`",
        ),
        (good().with_text(|_| String::new()), "cannot parse"),
        (good().with_text(|text| text + "{}"), "trailing characters"),
        (
            good().with_text(|text| text + &" ".repeat(1 << 17)),
            "is longer than",
        ),
        (same_name, "given to two devices"),
        (same_descriptor, "is given twice"),
    ];
    for (plan, said) in cases {
        expect_end(plan, EngineEnd::Spec, said);
    }
}

/// Asserts that the machine ends so, with one error that holds `said`, and leaves no process.
fn expect_end(plan: Plan, end: EngineEnd, said: &str) {
    let mut engine = plan.start();
    assert_eq!(engine.end(), end, "{}", engine.log());
    let log = engine.log_to_end();
    assert!(log.contains(said), "no {said:?} in {log}");
    assert_eq!(log.matches("ERROR").count(), 1, "{log}");
}

#[test]
fn without_kvm_there_is_no_machine() {
    let hidden = "mount -t tmpfs none /dev && exec \"$@\"";
    let starter = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        hidden,
        "sh",
    ];
    let plan = Plan::new(Program::new().power_off().kernel());
    expect_end(
        plan.started_by(&starter),
        EngineEnd::Kvm,
        "cannot open /dev/kvm",
    );
}

#[test]
fn a_kvm_that_lacks_something_is_told_what() {
    let lacking = place::program("lab-lacking");
    let lacking = lacking.to_str().unwrap();
    for (capability, name) in [
        ("121", "SPLIT_IRQCHIP"),
        ("81", "READONLY_MEM"),
        ("136", "IMMEDIATE_EXIT"),
    ] {
        let plan = Plan::new(Program::new().power_off().kernel());
        let said = format!("this KVM lacks KVM_CAP_{name}");
        expect_end(
            plan.started_by(&[lacking, capability]),
            EngineEnd::Kvm,
            &said,
        );
    }
}

#[test]
fn memory_that_the_process_may_not_have_is_one_error() {
    let starter = ["sh", "-c", "ulimit -v 262144; exec \"$@\"", "sh"];
    let plan = Plan::new(Program::new().power_off().kernel());
    let plan = plan
        .with(|spec| spec.memory = Mib(1024))
        .started_by(&starter);
    expect_end(
        plan,
        EngineEnd::Memory,
        "cannot map 1024 MiB of guest memory",
    );
}

#[test]
fn more_processors_than_there_are_is_a_warning() {
    let plan = Plan::new(Program::new().power_off().kernel());
    let mut engine = plan.with(|spec| spec.vcpus = 64).start();
    assert_eq!(engine.end(), EngineEnd::PowerOff, "{}", engine.log());
    let log = engine.log_to_end();
    assert!(log.contains("more vCPUs than this host has"), "{log}");
}

#[test]
fn a_daemon_that_dies_while_it_is_greeted_is_one_error() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let daemon = std::thread::spawn(move || {
        // The first request, and no answer.
        let mut request = [0; 12];
        std::io::Read::read_exact(&mut theirs, &mut request).unwrap();
    });
    let plan = Plan::new(Program::new().power_off().kernel());
    let plan = plan.device("dying", Function::Rng {}, ours);
    expect_end(plan, EngineEnd::Device, "the daemon of device dying failed");
    daemon.join().unwrap();
}

#[test]
fn a_daemon_that_says_nothing_is_given_up() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let kernel = Program::new().power_off().kernel();
    let mut engine = Plan::new(kernel)
        .device("mute", Function::Rng {}, ours)
        .start();
    assert_eq!(engine.end(), EngineEnd::Device, "{}", engine.log());
    drop(theirs);
}
