//! Puts the guest kernel into guest memory on the host, with everything the 64-bit Linux boot protocol promises it
//! (Documentation/arch/x86/boot.rst): command line, memory map, initial RAM file system, ACPI and a random seed.
//!
//! The kernel starts in 64-bit mode at its own entry point: no firmware, no decompressor, no real mode.

mod command_line;

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};

use linux_loader::loader::bootparam::{SETUP_RNG_SEED, boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::elf::Elf;
use linux_loader::loader::{KernelLoader as _, KernelLoaderResult};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

pub(crate) use self::command_line::{command_line, wants_early_output};
use crate::acpi;
use crate::memory::layout::{
    ACPI_END, ACPI_START, BOOT_PARAMS, CMDLINE, ECAM_SIZE, ECAM_START, HOLE_START, KERNEL_FLOOR,
    LOW_END, Ram, SETUP_DATA,
};
use crate::memory::{GuestMemory, layout};

/// `0xAA55` and `HdrS`, by which the kernel knows its parameters.
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
/// A loader without a number of its own.
const UNKNOWN_LOADER: u8 = 0xff;

/// Kinds of memory in the map the kernel gets.
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// As much as the kernel's own generator holds (`CHACHA_KEY_SIZE`).
const SEED_BYTES: usize = 32;

/// Initial RAM file systems end below this; the kernel maps the first GiB before it reads them.
const INITRAMFS_CEILING: u64 = 1 << 30;
const PAGE: u64 = 4096;

/// Why the kernel cannot be started.
#[derive(Debug, Error)]
pub(crate) enum KernelError {
    #[error("cannot load the kernel image; it must be an uncompressed 64-bit ELF vmlinux")]
    Load(#[source] linux_loader::loader::Error),
    #[error("the kernel image enters at {entry:#x}, which is not where guest memory holds it")]
    Entry { entry: u64 },
    #[error("the kernel command line has {0} bytes with what the machine adds, at most 2047 fit")]
    CommandLine(usize),
    #[error("cannot read the initial RAM file system")]
    ReadInitramfs(#[source] io::Error),
    #[error("the initial RAM file system of {size} bytes does not fit beside the kernel")]
    InitramfsTooLarge { size: u64 },
    #[error("cannot write {what} into guest memory")]
    Write {
        what: &'static str,
        #[source]
        source: GuestMemoryError,
    },
    #[error("cannot get a random seed for the kernel")]
    Seed(#[source] io::Error),
}

/// What is to be started.
pub(crate) struct Sources<'a> {
    /// The ELF image.
    pub(crate) image: &'a mut File,
    /// The initial RAM file system.
    pub(crate) initramfs: Option<&'a mut File>,
    /// The whole command line.
    pub(crate) command_line: &'a str,
    /// How many vCPUs the ACPI tables announce.
    pub(crate) vcpus: u16,
}

/// Loads the kernel and writes everything it finds. Returns where the first vCPU enters it.
///
/// # Errors
/// The image is not a kernel, or something does not fit.
pub(crate) fn load(
    memory: &GuestMemory,
    ram: &[Ram],
    sources: Sources<'_>,
) -> Result<u64, KernelError> {
    let floor = Some(GuestAddress(KERNEL_FLOOR));
    let loaded = Elf::load(memory, None, sources.image, floor).map_err(KernelError::Load)?;
    let entry = loaded.kernel_load.0;
    if !(KERNEL_FLOOR..loaded.kernel_end).contains(&entry) {
        return Err(KernelError::Entry { entry });
    }
    let initramfs = match sources.initramfs {
        Some(file) => Some(load_initramfs(memory, ram, &loaded, file)?),
        None => None,
    };
    let line = sources.command_line;
    if line.len() > spec::vm::MAX_CMDLINE_BYTES {
        return Err(KernelError::CommandLine(line.len()));
    }
    let write = |what| move |source| KernelError::Write { what, source };
    memory
        .write_slice(&[line.as_bytes(), b"\0"].concat(), GuestAddress(CMDLINE))
        .map_err(write("the command line"))?;
    let seed = seed()?;
    memory
        .write_slice(&seed, GuestAddress(SETUP_DATA))
        .map_err(write("the random seed"))?;
    let params = parameters(ram, line.len(), initramfs);
    memory
        .write_obj(params, GuestAddress(BOOT_PARAMS))
        .map_err(write("the boot parameters"))?;
    acpi::write(memory, sources.vcpus).map_err(write("the ACPI tables"))?;
    Ok(entry)
}

/// Puts the file system as high as it may be. Returns its place and size.
fn load_initramfs(
    memory: &GuestMemory,
    ram: &[Ram],
    kernel: &KernelLoaderResult,
    file: &mut File,
) -> Result<(u64, u64), KernelError> {
    let size = file
        .seek(SeekFrom::End(0))
        .map_err(KernelError::ReadInitramfs)?;
    file.rewind().map_err(KernelError::ReadInitramfs)?;
    let ceiling = ram.first().map_or(0, Ram::end).min(INITRAMFS_CEILING);
    let start = ceiling.checked_sub(size).map(|start| start / PAGE * PAGE);
    let start = start.filter(|start| *start >= kernel.kernel_end);
    let (Some(start), Ok(length)) = (start, usize::try_from(size)) else {
        return Err(KernelError::InitramfsTooLarge { size });
    };
    let read = memory.read_exact_volatile_from(GuestAddress(start), file, length);
    read.map_err(|error| KernelError::ReadInitramfs(io::Error::other(error)))?;
    Ok((start, size))
}

/// Returns the parameters the kernel reads first.
fn parameters(ram: &[Ram], line: usize, initramfs: Option<(u64, u64)>) -> boot_params {
    let (ramdisk, ramdisk_size) = initramfs.unwrap_or_default();
    let low = |value: u64| u32::try_from(value).expect("below 4 GiB");
    let hdr = setup_header {
        boot_flag: BOOT_FLAG,
        header: HEADER_MAGIC,
        type_of_loader: UNKNOWN_LOADER,
        cmd_line_ptr: low(CMDLINE),
        cmdline_size: u32::try_from(line).expect("at most 2047"),
        ramdisk_image: low(ramdisk),
        ramdisk_size: low(ramdisk_size),
        kernel_alignment: 0x20_0000,
        setup_data: SETUP_DATA,
        ..setup_header::default()
    };
    let mut params = boot_params {
        hdr,
        acpi_rsdp_addr: ACPI_START,
        ..boot_params::default()
    };
    let map = memory_map(ram);
    params.e820_entries = u8::try_from(map.len()).expect("a handful of entries");
    let mut table = params.e820_table;
    table[..map.len()].copy_from_slice(&map);
    params.e820_table = table;
    params
}

/// Returns what the kernel may use and what it must leave alone.
fn memory_map(ram: &[Ram]) -> Vec<boot_e820_entry> {
    let mut map = vec![
        entry(0, LOW_END, E820_RAM),
        entry(ACPI_START, ACPI_END, E820_RESERVED),
    ];
    for region in ram {
        map.push(entry(
            region.start.max(KERNEL_FLOOR),
            region.end(),
            E820_RAM,
        ));
    }
    map.push(entry(ECAM_START, ECAM_START + ECAM_SIZE, E820_RESERVED));
    map
}

fn entry(start: u64, end: u64, kind: u32) -> boot_e820_entry {
    boot_e820_entry {
        addr: start,
        size: end - start,
        r#type: kind,
    }
}

/// Returns a `struct setup_data` with fresh randomness, so that the guest need not wait for any.
fn seed() -> Result<Vec<u8>, KernelError> {
    let mut random = [0; SEED_BYTES];
    let flags = rustix::rand::GetRandomFlags::empty();
    rustix::rand::getrandom(&mut random, flags).map_err(|error| KernelError::Seed(error.into()))?;
    let length = u32::try_from(SEED_BYTES).expect("32");
    let mut data = Vec::new();
    data.extend(0_u64.to_le_bytes());
    data.extend(SETUP_RNG_SEED.to_le_bytes());
    data.extend(length.to_le_bytes());
    data.extend(random);
    Ok(data)
}

const _: () = assert!(HOLE_START > INITRAMFS_CEILING && layout::PAGE_TABLES < CMDLINE);

#[cfg(test)]
mod tests;
