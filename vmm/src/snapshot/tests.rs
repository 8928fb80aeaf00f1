//! Which files are snapshots of which machines.

use spec::fd::InheritedFd;
use spec::vm::{Console, Kernel, Options, VM_SPEC_VERSION};

use super::*;

fn spec() -> VmSpec {
    VmSpec {
        version: VM_SPEC_VERSION,
        name: "it".to_owned(),
        memory: Mib(64),
        vcpus: 1,
        kernel: Kernel {
            image: InheritedFd(3),
            cmdline: String::new(),
            initramfs: None,
        },
        snapshot: Some(InheritedFd(4)),
        console: Console {
            output: InheritedFd(5),
            input: None,
        },
        control: InheritedFd(6),
        devices: Vec::new(),
        options: Options::default(),
    }
}

/// A file with this description, and memory after it.
fn file(text: &str) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(MAGIC, 0).unwrap();
    let length = (text.len() as u64).to_le_bytes();
    file.write_all_at(&length, MAGIC.len() as u64).unwrap();
    file.write_all_at(text.as_bytes(), HEADER_BYTES).unwrap();
    file
}

fn refusal(file: &File) -> String {
    Snapshot::read(file, &spec()).err().unwrap().to_string()
}

const EMPTY: &str = r#"{"version":1,"bytes":24,"memory":64,"clock":1,"processors":[],
    "ioapic":{"selected":0,"entries":[0,0]},"power":{"events":0,"panicked":false},"balloon":null,"functions":[]}"#;

const FUNCTION: &str = r#"{"name":"a","slot":1,"function":{"config":[],"interrupts":[],"common":{"offered":0,
    "device_select":0,"driver_select":0,"accepted":0,"config_vector":0,"status":0,"generation":0,"selected":0,
    "queues":[]},"status":0,"positions":null}}"#;

#[test]
fn what_is_no_snapshot_is_refused() {
    let short = tempfile::tempfile().unwrap();
    short.write_all_at(b"testudo", 0).unwrap();
    assert_eq!(refusal(&short), "the file is no snapshot");
    let other = file(EMPTY);
    other.write_all_at(b"T", 0).unwrap();
    assert_eq!(refusal(&other), "the file is no snapshot");
    let huge = file(EMPTY);
    huge.write_all_at(&u64::MAX.to_le_bytes(), 16).unwrap();
    assert_eq!(refusal(&huge), "the file is no snapshot");
}

#[test]
fn a_description_that_is_cut_or_foreign_is_refused() {
    let cut = file(EMPTY);
    cut.set_len(100).unwrap();
    assert_eq!(refusal(&cut), "cannot read the snapshot");
    let foreign = EMPTY.replace("\"clock\"", "\"watch\"");
    assert_eq!(refusal(&file(&foreign)), "cannot parse the snapshot");
    let newer = EMPTY.replace("\"version\":1", "\"version\":2");
    assert_eq!(
        refusal(&file(&newer)),
        "the snapshot has version 2, this build reads 1"
    );
}

#[test]
fn a_file_without_its_end_is_refused() {
    let fitting = EMPTY.replace("\"bytes\":24", "\"bytes\":20000000").replace(
        "\"functions\":[]",
        &format!("\"functions\":[{FUNCTION},{FUNCTION}]"),
    );
    let snapshot = file(&fitting);
    let spec = VmSpec { vcpus: 0, ..spec() };
    let has = snapshot.metadata().unwrap().len();
    let error = Snapshot::read(&snapshot, &spec).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("the snapshot has {has} of its 20000000 bytes")
    );
}

#[test]
fn another_machine_is_refused_with_both_sizes() {
    assert_eq!(
        refusal(&file(EMPTY)),
        "the snapshot is of a machine with 64 MiB, 0 vCPUs and 0 devices, \
         the specification says 64 MiB, 1 vCPUs and 2 devices"
    );
}
