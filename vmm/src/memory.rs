//! The guest's memory on the host: one file, mapped here, registered in KVM, shared with the device daemons.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: KVM is told where guest memory is mapped"
)]

pub(crate) mod backing;
mod image;
pub(crate) mod layout;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use rustix::fs::{FallocateFlags, fallocate};
use spec::units::Mib;
use thiserror::Error;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _,
    MmapRegion,
};

use self::layout::{Ram, ram_regions};

/// The type every in-process device and the loader see.
pub(crate) type GuestMemory = GuestMemoryMmap<()>;

/// Why the guest has no memory.
#[derive(Debug, Error)]
pub(crate) enum MemoryError {
    #[error("the machine wants {wanted}, this host has {has}")]
    MoreThanHost { wanted: Mib, has: Mib },
    #[error("cannot reserve {0} of guest memory")]
    Reserve(Mib, #[source] io::Error),
    #[error("cannot map {0} of guest memory")]
    Map(Mib, #[source] vm_memory::mmap::FromRangesError),
    #[error("cannot map the {0}")]
    MapShadow(&'static str, #[source] vm_memory::mmap::MmapRegionError),
    #[error("cannot give memory at {address:#x} to the guest")]
    Register {
        address: u64,
        #[source]
        source: io::Error,
    },
}

/// The guest's memory with the file behind it.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    guest: Arc<GuestMemory>,
    file: Arc<File>,
    regions: Arc<[Ram]>,
}

impl Memory {
    /// Maps `file` as guest memory of `size` and registers it in KVM.
    ///
    /// # Errors
    /// The host has no room for the mapping, or KVM refuses it.
    pub(crate) fn map(vm: &VmFd, file: File, size: Mib) -> Result<Self, MemoryError> {
        let memory = Self::map_only(file, size)?;
        for (slot, region) in (0..).zip(memory.guest.iter()) {
            register(vm, slot, region, region.start_addr().0, 0)?;
        }
        Ok(memory)
    }

    /// Makes memory without a machine to give it to.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn for_tests(size: Mib) -> Self {
        let file = backing::sealed(size).expect("a memory file");
        Self::map_only(file, size).expect("a mapping")
    }

    /// Maps `file` without a machine to give it to.
    fn map_only(file: File, size: Mib) -> Result<Self, MemoryError> {
        let file = Arc::new(file);
        let regions: Arc<[Ram]> = ram_regions(size).into();
        let ranges = regions.iter().map(|ram| {
            let length = usize::try_from(ram.size).expect("addresses have 64 bits");
            let offset = FileOffset::from_arc(Arc::clone(&file), ram.file_offset);
            (GuestAddress(ram.start), length, Some(offset))
        });
        let guest = GuestMemory::from_ranges_with_files(ranges.collect::<Vec<_>>())
            .map_err(|error| MemoryError::Map(size, error))?;
        Ok(Self {
            guest: Arc::new(guest),
            file,
            regions,
        })
    }

    /// Returns the mapping.
    pub(crate) fn guest(&self) -> &Arc<GuestMemory> {
        &self.guest
    }

    /// Gives `length` bytes at guest address `start` back to the host; the guest reads zeroes there next.
    ///
    /// Shared memory is only freed in its file: `MADV_DONTNEED` would free nothing.
    ///
    /// # Errors
    /// The range is not memory, or the host refuses.
    pub(crate) fn give_back(&self, start: u64, length: u64) -> io::Result<()> {
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "not guest memory");
        let end = start.checked_add(length).ok_or_else(outside)?;
        let ram = self
            .regions
            .iter()
            .find(|ram| ram.start <= start && end <= ram.end())
            .ok_or_else(outside)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let offset = ram.file_offset + (start - ram.start);
        Ok(fallocate(self.file.as_fd(), flags, offset, length)?)
    }
}

/// Memory of this process that the guest reads at one place without an exit; its writes there exit.
#[derive(Debug)]
pub(crate) struct Shadow {
    region: MmapRegion,
}

impl Shadow {
    /// Maps `size` zero bytes and shows them to the guest at `address`, in KVM's memory slot `slot`.
    ///
    /// # Errors
    /// The host has no room, or KVM refuses.
    pub(crate) fn map(vm: &VmFd, slot: u32, address: u64, size: u64) -> Result<Self, MemoryError> {
        let size = usize::try_from(size).expect("addresses have 64 bits");
        let region = MmapRegion::new(size)
            .map_err(|error| MemoryError::MapShadow("PCI configuration space", error))?;
        register(vm, slot, &region, address, KVM_MEM_READONLY)?;
        Ok(Self { region })
    }

    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> &MmapRegion {
        &self.region
    }
}

fn register(
    vm: &VmFd,
    slot: u32,
    region: &MmapRegion,
    address: u64,
    flags: u32,
) -> Result<(), MemoryError> {
    let slot = kvm_userspace_memory_region {
        slot,
        flags,
        guest_phys_addr: address,
        memory_size: region.size() as u64,
        userspace_addr: region.as_ptr() as u64,
    };
    // SAFETY: the region is mapped, and stays mapped for as long as the machine runs: both the guest memory
    // and the shadow are owned by the machine, which is dropped after its vCPUs have ended.
    let registered = unsafe { vm.set_user_memory_region(slot) };
    registered.map_err(|error| MemoryError::Register {
        address,
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn memory_beyond_the_hole_is_other_memory() {
        let memory = Memory::for_tests(Mib(5 * 1024));
        let last = GuestAddress((6 << 30) - 8);
        memory.guest().write_obj(7_u64, last).unwrap();
        memory
            .guest()
            .write_obj(9_u64, GuestAddress((3 << 30) - 8))
            .unwrap();
        assert_eq!(memory.guest().read_obj::<u64>(last).unwrap(), 7);
        assert!(
            memory
                .guest()
                .write_obj(1_u8, GuestAddress(3 << 30))
                .is_err()
        );
        assert!(
            memory
                .guest()
                .write_obj(1_u8, GuestAddress(6 << 30))
                .is_err()
        );
    }

    #[test]
    fn given_back_memory_is_free_and_zero() {
        let memory = Memory::for_tests(Mib(64));
        let there = GuestAddress(16 << 20);
        memory.guest().write_slice(&[0xaa; 8192], there).unwrap();
        let before = memory.file.metadata().unwrap().blocks();
        memory.give_back(there.0, 8192).unwrap();
        assert!(memory.file.metadata().unwrap().blocks() < before);
        assert_eq!(memory.guest().read_obj::<u64>(there).unwrap(), 0);
    }

    #[test]
    fn what_is_not_memory_cannot_be_given_back() {
        let memory = Memory::for_tests(Mib(64));
        memory.give_back(63 << 20, 2 << 20).unwrap_err();
        memory.give_back(u64::MAX, 4096).unwrap_err();
    }
}
