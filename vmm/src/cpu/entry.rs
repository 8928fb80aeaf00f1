//! The state in which the first processor enters the kernel: 64-bit mode, memory mapped to itself, as the Linux
//! boot protocol wants it (Documentation/arch/x86/boot.rst, "64-bit boot protocol"). Host side.

use kvm_bindings::{kvm_fpu, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::memory::GuestMemory;
use crate::memory::layout::{BOOT_PARAMS, BOOT_STACK, GDT, PAGE_TABLES};

/// Bits of control registers and page table entries (Intel SDM volume 3, §2.5 and §4.5; AMD APM the same).
const CR0_PROTECTED: u64 = 1;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_EXTENSION: u64 = 1 << 5;
const EFER_LONG_MODE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
const PRESENT_WRITABLE: u64 = 0b11;
const HUGE: u64 = 1 << 7;
/// The one flag that is always set.
const FLAGS_RESERVED: u64 = 1 << 1;

const TABLE: u64 = 4096;
const ENTRIES: u64 = 512;
const HUGE_PAGE: u64 = 2 << 20;

/// What a processor has after a reset (Intel SDM volume 1, §8.1.5 and §10.2.3).
const X87_CONTROL: u16 = 0x37f;
const SSE_CONTROL: u32 = 0x1f80;

/// Descriptors that the boot protocol numbers: nothing, nothing, code at 0x10, data at 0x18.
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;

/// Writes page tables that map the first GiB to itself, and the segment descriptors.
pub(super) fn write_tables(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    let [top, middle, bottom] = [0, 1, 2].map(|index| PAGE_TABLES + index * TABLE);
    memory.write_obj(middle | PRESENT_WRITABLE, GuestAddress(top))?;
    memory.write_obj(bottom | PRESENT_WRITABLE, GuestAddress(middle))?;
    for index in 0..ENTRIES {
        let page = (index * HUGE_PAGE) | PRESENT_WRITABLE | HUGE;
        memory.write_obj(page, GuestAddress(bottom + index * 8))?;
    }
    for (index, descriptor) in (0..).zip(DESCRIPTORS) {
        memory.write_obj(descriptor, GuestAddress(GDT + index * 8))?;
    }
    Ok(())
}

/// Returns `sregs` in 64-bit mode.
pub(super) fn special_registers(mut sregs: kvm_sregs) -> kvm_sregs {
    let flat = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        present: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let code = kvm_segment {
        selector: CODE,
        type_: 0b1011,
        l: 1,
        ..flat
    };
    let data = kvm_segment {
        selector: DATA,
        type_: 0b0011,
        db: 1,
        ..flat
    };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = GDT;
    sregs.gdt.limit = u16::try_from(DESCRIPTORS.len() * 8 - 1).expect("four descriptors");
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr3 = PAGE_TABLES;
    sregs.cr0 |= CR0_PROTECTED | CR0_PAGING;
    sregs.cr4 |= CR4_PHYSICAL_EXTENSION;
    sregs.efer |= EFER_LONG_MODE | EFER_LONG_MODE_ACTIVE;
    sregs
}

/// Returns the registers at `entry`.
pub(super) fn registers(entry: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rsp: BOOT_STACK,
        rbp: BOOT_STACK,
        rsi: BOOT_PARAMS,
        rflags: FLAGS_RESERVED,
        ..kvm_regs::default()
    }
}

/// Returns the floating point state after a reset.
pub(super) fn floating_point() -> kvm_fpu {
    kvm_fpu {
        fcw: X87_CONTROL,
        mxcsr: SSE_CONTROL,
        ..kvm_fpu::default()
    }
}
