//! What a specification may say and which one contradiction is reported when it may not.

use super::{
    Console, Device, Function, Kernel, MAX_SPEC_BYTES, Options, ReadVmSpecError, VM_SPEC_VERSION,
    VmSpec, VmSpecError,
};
use crate::device::MacAddress;
use crate::fd::InheritedFd;
use crate::units::Mib;

fn device(name: &str, fd: i32, function: Function) -> Device {
    Device {
        name: name.to_owned(),
        socket: InheritedFd(fd),
        function,
        queue_size: 256,
    }
}

fn spec() -> VmSpec {
    VmSpec {
        version: VM_SPEC_VERSION,
        name: "termina".to_owned(),
        memory: Mib(2048),
        vcpus: 2,
        kernel: Kernel {
            image: InheritedFd(3),
            cmdline: "root=/dev/vda".to_owned(),
            initramfs: None,
        },
        snapshot: None,
        console: Console {
            output: InheritedFd(1),
            input: Some(InheritedFd(1)),
        },
        control: InheritedFd(4),
        devices: vec![
            device("root", 5, Function::Block { queues: 1 }),
            device("vsock", 6, Function::Vsock {}),
            device(
                "home",
                7,
                Function::Fs {
                    tag: "home".to_owned(),
                    queues: 1,
                },
            ),
        ],
        options: Options::default(),
    }
}

fn problem(change: impl FnOnce(&mut VmSpec)) -> String {
    let mut spec = spec();
    change(&mut spec);
    spec.validate().unwrap_err().to_string()
}

#[test]
fn a_whole_machine_survives_the_wire() {
    let text = serde_json::to_vec(&spec()).unwrap();
    assert_eq!(VmSpec::read(text.as_slice()).unwrap(), spec());
}

#[test]
fn optional_parts_may_be_absent() {
    let text = r#"{"version":1,"name":"a","memory":512,"vcpus":1,"kernel":{"image":3,"cmdline":""},
        "console":{"output":1},"control":4}"#;
    let spec = VmSpec::read(text.as_bytes()).unwrap();
    assert_eq!(spec.devices, []);
    assert_eq!(spec.options, Options::default());
}

#[test]
fn an_unknown_field_is_refused_wherever_it_is() {
    let text = serde_json::to_string(&spec()).unwrap();
    for (place, with) in [
        (r#""vcpus":2"#, r#""vcpus":2,"nics":1"#),
        (r#""cmdline":"#, r#""init":"x","cmdline":"#),
        (r#""kind":"vsock""#, r#""kind":"vsock","cid":3"#),
        (r#""huge_pages":true"#, r#""huge_pages":true,"swap":1"#),
    ] {
        assert!(text.contains(place), "{place} is not in {text}");
        let error = VmSpec::read(text.replace(place, with).as_bytes()).unwrap_err();
        assert!(
            matches!(error, ReadVmSpecError::Parse(_)),
            "{with}: {error}"
        );
    }
}

#[test]
fn a_file_without_end_is_refused() {
    let error = VmSpec::read(std::io::repeat(b' ')).unwrap_err();
    assert!(
        matches!(error, ReadVmSpecError::TooLong),
        "{error} within {MAX_SPEC_BYTES}"
    );
}

#[test]
fn text_after_the_specification_is_refused() {
    let mut text = serde_json::to_vec(&spec()).unwrap();
    text.extend_from_slice(b"{}");
    assert!(matches!(
        VmSpec::read(text.as_slice()),
        Err(ReadVmSpecError::Parse(_))
    ));
}

#[test]
fn another_version_is_refused_by_name() {
    assert_eq!(
        problem(|spec| spec.version = 2),
        "version is 2, this build reads 1"
    );
}

#[test]
fn memory_and_vcpus_have_bounds() {
    assert_eq!(
        problem(|spec| spec.memory = Mib(63)),
        "memory is 63 MiB, it must be between 64 MiB and 1048576 MiB"
    );
    assert_eq!(
        problem(|spec| spec.vcpus = 0),
        "vcpus is 0, it must be between 1 and 64"
    );
    assert_eq!(
        problem(|spec| spec.vcpus = 65),
        "vcpus is 65, it must be between 1 and 64"
    );
}

#[test]
fn a_descriptor_has_one_owner() {
    assert_eq!(
        problem(|spec| spec.devices[1].socket = InheritedFd(3)),
        "descriptor 3 is given twice, the second time as the socket of device vsock"
    );
    assert_eq!(
        problem(|spec| spec.snapshot = Some(InheritedFd(3))),
        "descriptor 3 is given twice, the second time as snapshot"
    );
    assert_eq!(
        problem(|spec| spec.control = InheritedFd(3)),
        "descriptor 3 is given twice, the second time as control"
    );
}

#[test]
fn a_standard_stream_can_only_be_a_console() {
    assert_eq!(
        problem(|spec| spec.control = InheritedFd(2)),
        "descriptor 2 cannot be control"
    );
    assert_eq!(
        problem(|spec| spec.kernel.image = InheritedFd(-1)),
        "descriptor -1 cannot be kernel.image"
    );
}

#[test]
fn a_group_address_is_no_card() {
    let mut spec = spec();
    let mac = MacAddress([2, 0, 0, 0, 0, 1]);
    spec.devices[0].function = Function::Net {
        queue_pairs: 1,
        mac,
    };
    let text = serde_json::to_string(&spec)
        .unwrap()
        .replace("02:00", "03:00");
    assert!(matches!(
        VmSpec::read(text.as_bytes()),
        Err(ReadVmSpecError::Parse(_))
    ));
}

#[test]
fn the_command_line_reaches_the_kernel_whole_or_not_at_all() {
    assert_eq!(
        problem(|spec| spec.kernel.cmdline = "x".repeat(2048)),
        "kernel command line is longer than 2047 bytes"
    );
    assert_eq!(
        problem(|spec| spec.kernel.cmdline = "a\0b".to_owned()),
        "kernel command line has a control character"
    );
}

#[test]
fn names_are_plain_and_unique() {
    for name in ["", "-a", "a/b", "Ä", &"a".repeat(64)] {
        let error = VmSpec {
            name: name.to_owned(),
            ..spec()
        }
        .validate()
        .unwrap_err();
        assert!(matches!(error, VmSpecError::Name { .. }), "{name}: {error}");
    }
    assert_eq!(
        problem(|spec| spec.devices[1].name = "root".to_owned()),
        "name \"root\" is given to two devices"
    );
}

#[test]
fn contradictory_devices_are_named() {
    assert_eq!(
        problem(|spec| spec.devices[2].function = Function::Vsock {}),
        "device home: a machine has at most one vsock device"
    );
    let folder = || Function::Fs {
        tag: "home".to_owned(),
        queues: 1,
    };
    assert_eq!(
        problem(|spec| spec.devices.push(device("again", 8, folder()))),
        "device again: its tag is already taken"
    );
    assert_eq!(
        problem(|spec| spec.devices[0].queue_size = 100),
        "device root: queue_size must be a power of two of at most 1024"
    );
    assert_eq!(
        problem(|spec| spec.devices[0].function = Function::Block { queues: 17 }),
        "device root: it must have between 1 and 16 queues"
    );
    let extra = |n: i32| device(&format!("d{n}"), 10 + n, Function::Rng {});
    assert_eq!(
        problem(|spec| spec.devices.extend((0..26).map(extra))),
        "29 devices, at most 28 fit"
    );
}
