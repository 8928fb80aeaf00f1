//! The tables as a guest's firmware code would walk them.

use std::process::Command;

use super::*;

fn word(image: &[u8], at: u64) -> u32 {
    let at = usize::try_from(at - ACPI_START).unwrap();
    u32::from_le_bytes(image[at..at + 4].try_into().unwrap())
}

fn table(image: &[u8], at: u64) -> &[u8] {
    let length = usize::try_from(word(image, at + 4)).unwrap();
    let at = usize::try_from(at - ACPI_START).unwrap();
    &image[at..at + length]
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Returns every table that can be reached from the root pointer.
fn reachable(image: &[u8]) -> Vec<&[u8]> {
    let root = &image[..36];
    assert_eq!(&root[..8], b"RSD PTR ");
    assert_eq!((sum(&root[..20]), sum(root)), (0, 0));
    let xsdt = table(image, u64::from_le_bytes(root[24..32].try_into().unwrap()));
    let entries = xsdt[36..]
        .chunks(8)
        .map(|entry| u64::from_le_bytes(entry.try_into().unwrap()));
    let mut found = vec![xsdt];
    found.extend(entries.map(|entry| table(image, entry)));
    let fadt = found
        .iter()
        .find(|table| table.starts_with(b"FACP"))
        .unwrap();
    let dsdt = u64::from_le_bytes(fadt[140..148].try_into().unwrap());
    found.push(table(image, dsdt));
    found
}

#[test]
fn every_table_is_reachable_and_sums_to_zero() {
    for vcpus in [1, 2, 64] {
        let image = tables(vcpus);
        let mut names: Vec<_> = reachable(&image)
            .into_iter()
            .map(|table| &table[..4])
            .collect();
        names.sort_unstable();
        assert_eq!(names, [b"APIC", b"DSDT", b"FACP", b"MCFG", b"XSDT"]);
        for table in reachable(&image) {
            assert_eq!(sum(table), 0, "{:?} for {vcpus} vCPUs", &table[..4]);
        }
    }
}

#[test]
fn every_vcpu_is_in_the_madt() {
    let image = tables(3);
    let tables = reachable(&image);
    let madt = tables
        .into_iter()
        .find(|table| table.starts_with(b"APIC"))
        .unwrap();
    let local: Vec<_> = (0..3)
        .map(|index| &madt[44 + index * 8..52 + index * 8])
        .collect();
    assert_eq!(local[2], [0, 8, 2, 2, 1, 0, 0, 0]);
    assert_eq!(madt[44 + 24], 1, "an I/O APIC follows");
}

#[test]
fn the_machine_is_hardware_reduced_with_a_reset_register() {
    let image = tables(1);
    let tables = reachable(&image);
    let fadt = tables
        .into_iter()
        .find(|table| table.starts_with(b"FACP"))
        .unwrap();
    let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
    assert_eq!(flags & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
    assert_eq!(&fadt[116..129], [1, 8, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 1]);
}

/// Intel's compiler reads back what a guest's interpreter will: CI installs it with the other tools.
#[test]
fn an_independent_disassembler_understands_every_table() {
    let directory = tempfile::tempdir().unwrap();
    let image = tables(2);
    for table in reachable(&image) {
        let name = String::from_utf8_lossy(&table[..4]).into_owned();
        let path = directory.path().join(format!("{name}.dat"));
        std::fs::write(&path, table).unwrap();
        let run = Command::new("iasl").arg("-d").arg(&path).output().unwrap();
        assert!(
            run.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&run.stderr)
        );
        let text = std::fs::read_to_string(path.with_extension("dsl")).unwrap();
        assert!(
            !text.contains("Invalid") && !text.contains("Unknown"),
            "{name}:\n{text}"
        );
    }
}
