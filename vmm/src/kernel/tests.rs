//! What is accepted as a kernel, and what the kernel finds.

use std::io::Write as _;

use spec::units::Mib;

use super::*;
use crate::memory::layout::ram_regions;

/// An ELF image of one loadable segment at 16 MiB.
fn elf(entry: u64, segment: &[u8]) -> Vec<u8> {
    let mut image = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    image.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    image.extend(entry.to_le_bytes());
    image.extend(64_u64.to_le_bytes());
    image.extend(0_u64.to_le_bytes());
    image.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    image.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    let length = segment.len() as u64;
    for word in [120, 0x100_0000, 0x100_0000, length, length, 0x1000] {
        image.extend(u64::to_le_bytes(word));
    }
    image.extend(segment);
    image
}

fn load_image(
    image: &[u8],
    initramfs: Option<&[u8]>,
    size: Mib,
) -> Result<GuestMemory, KernelError> {
    let ram = ram_regions(size);
    let ranges: Vec<_> = ram
        .iter()
        .map(|ram| (GuestAddress(ram.start), usize::try_from(ram.size).unwrap()))
        .collect();
    let memory = GuestMemory::from_ranges(&ranges).unwrap();
    let file = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    };
    let mut image = file(image);
    let mut initramfs = initramfs.map(file);
    let sources = Sources {
        image: &mut image,
        initramfs: initramfs.as_mut(),
        command_line: "quiet",
        vcpus: 1,
    };
    load(&memory, &ram, sources)?;
    Ok(memory)
}

#[test]
fn a_kernel_finds_its_segment_its_line_and_its_map() {
    let memory = load_image(&elf(0x100_0000, b"kernel"), None, Mib(4096)).unwrap();
    let mut segment = [0; 6];
    memory
        .read_slice(&mut segment, GuestAddress(0x100_0000))
        .unwrap();
    assert_eq!(&segment, b"kernel");
    let params: boot_params = memory.read_obj(GuestAddress(BOOT_PARAMS)).unwrap();
    let table = params.e820_table;
    let map: Vec<_> = table[..usize::from(params.e820_entries)]
        .iter()
        .map(|entry| (entry.addr, { entry.addr } + entry.size, entry.r#type))
        .collect();
    assert_eq!(map[0], (0, LOW_END, 1));
    assert!(map.contains(&(0x10_0000, 3 << 30, 1)) && map.contains(&(4 << 30, 5 << 30, 1)));
    assert!(map.contains(&(ECAM_START, ECAM_START + ECAM_SIZE, 2)));
    let mut line = [0; 6];
    memory
        .read_slice(&mut line, GuestAddress(u64::from(params.hdr.cmd_line_ptr)))
        .unwrap();
    assert_eq!(&line, b"quiet\0");
}

#[test]
fn each_start_has_its_own_seed() {
    assert_ne!(seed().unwrap(), seed().unwrap());
    assert_eq!(&seed().unwrap()[8..16], [9, 0, 0, 0, 32, 0, 0, 0]);
}

#[test]
fn the_initial_file_system_ends_at_the_top() {
    let content = [7; 5000];
    let memory = load_image(&elf(0x100_0000, b"kernel"), Some(&content), Mib(64)).unwrap();
    let params: boot_params = memory.read_obj(GuestAddress(BOOT_PARAMS)).unwrap();
    let (start, size) = (params.hdr.ramdisk_image, params.hdr.ramdisk_size);
    assert_eq!((start, size), ((64 << 20) - 8192, 5000));
    assert_eq!(
        memory
            .read_obj::<u8>(GuestAddress(u64::from(start) + 4999))
            .unwrap(),
        7
    );
}

#[test]
fn what_is_not_a_kernel_is_refused() {
    for image in [
        &b""[..],
        b"MZ\0\0",
        &[0; 4096],
        &elf(0x100_0000, b"")[..100],
    ] {
        let error = load_image(image, None, Mib(64)).unwrap_err();
        assert!(matches!(error, KernelError::Load(_)), "{error:?}");
    }
}

#[test]
fn a_kernel_that_enters_elsewhere_is_refused() {
    let error = load_image(&elf(0x900_0000, b"kernel"), None, Mib(64)).unwrap_err();
    assert!(
        matches!(error, KernelError::Entry { entry: 0x900_0000 }),
        "{error:?}"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let error = load_image(&elf(0x100_0000, &[1; 64]), Some(&[0; 49 << 20]), Mib(64)).unwrap_err();
    assert!(
        matches!(error, KernelError::InitramfsTooLarge { .. }),
        "{error:?}"
    );
}
