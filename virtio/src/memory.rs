//! The guest's memory as a daemon sees it: files from the front end mapped shared, and I/O straight into them.
//!
//! The files are closed as soon as they are mapped. A captured daemon can scribble over the guest, which it could
//! do anyhow, but it has no descriptor through which to shrink the file and so kill the engine.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: maps guest memory and hands its addresses to readv and writev"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{self, NonNull};

use thiserror::Error;
use vm_memory::mmap::MmapRegion;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, VolatileMemory, VolatileSlice};

/// The most regions one machine has: RAM below and above 4 GiB, and memory plugged in later.
pub(crate) const MAX_REGIONS: usize = 32;

/// `IOV_MAX` of Linux: readv and writev refuse more.
pub const MAX_VECTORS: usize = 1024;

/// Why a memory table was refused.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// More than [`MAX_REGIONS`].
    #[error("the front end names more than {MAX_REGIONS} memory regions")]
    TooMany,
    /// A region that wraps around, is empty or overlaps another.
    #[error("memory region at {guest:#x} of {bytes} bytes is impossible")]
    Impossible {
        /// Guest-physical start.
        guest: u64,
        /// Length.
        bytes: u64,
    },
    /// The file ends before the region does; touching the rest would kill the daemon.
    #[error("the file of the memory region at {guest:#x} is too short")]
    ShortFile {
        /// Guest-physical start.
        guest: u64,
    },
    /// The kernel refused to map it.
    #[error("cannot map the memory region at {guest:#x}")]
    Map {
        /// Guest-physical start.
        guest: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No region starts there.
    #[error("no memory region at {guest:#x}")]
    Unknown {
        /// Guest-physical start.
        guest: u64,
    },
}

/// Where one region lies in the guest, in the front end and in its file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) guest: u64,
    pub(crate) user: u64,
    pub(crate) bytes: u64,
    pub(crate) offset: u64,
}

/// All memory of the guest.
#[derive(Debug, Default)]
pub struct Memory {
    // Dropped before the mappings it points into.
    map: GuestMemoryMmap,
    regions: Vec<Region>,
}

#[derive(Debug)]
struct Region {
    place: Place,
    mapping: Mapping,
}

impl Memory {
    /// Maps a whole table, each region with its file.
    pub(crate) fn new(table: Vec<(Place, File)>) -> Result<Self, MemoryError> {
        let mut memory = Self::default();
        for (place, file) in table {
            memory.push(place, &file)?;
        }
        memory.rebuild()?;
        Ok(memory)
    }

    /// Maps one more region.
    pub(crate) fn add(&mut self, place: Place, file: &File) -> Result<(), MemoryError> {
        self.push(place, file)?;
        self.rebuild()
    }

    /// Unmaps the region that starts at `guest`.
    pub(crate) fn remove(&mut self, guest: u64) -> Result<(), MemoryError> {
        let found = self
            .regions
            .iter()
            .position(|region| region.place.guest == guest);
        let index = found.ok_or(MemoryError::Unknown { guest })?;
        let gone = self.regions.remove(index);
        self.rebuild()?;
        drop(gone);
        Ok(())
    }

    /// Returns the guest-physical view.
    #[must_use]
    pub fn map(&self) -> &GuestMemoryMmap {
        &self.map
    }

    /// Translates an address in the front end's own address space, in which it names the rings.
    pub(crate) fn guest_address(&self, user: u64) -> Option<GuestAddress> {
        self.regions
            .iter()
            .map(|region| region.place)
            .find_map(|place| {
                let offset = user.checked_sub(place.user)?;
                (offset < place.bytes).then(|| GuestAddress(place.guest + offset))
            })
    }

    fn push(&mut self, place: Place, file: &File) -> Result<(), MemoryError> {
        if self.regions.len() == MAX_REGIONS {
            return Err(MemoryError::TooMany);
        }
        let mapping = Mapping::new(place, file)?;
        self.regions.push(Region { place, mapping });
        Ok(())
    }

    /// Builds the guest-physical view of the regions there are.
    fn rebuild(&mut self) -> Result<(), MemoryError> {
        self.regions.sort_by_key(|region| region.place.guest);
        let mut views = Vec::with_capacity(self.regions.len());
        for Region { place, mapping } in &self.regions {
            let impossible = MemoryError::Impossible {
                guest: place.guest,
                bytes: place.bytes,
            };
            let view = GuestRegionMmap::new(mapping.view(), GuestAddress(place.guest));
            views.push(view.ok_or(impossible)?);
        }
        let last = self.regions.last().map_or(0, |region| region.place.guest);
        self.map = if views.is_empty() {
            GuestMemoryMmap::default()
        } else {
            GuestMemoryMmap::from_regions(views).map_err(|_overlap| MemoryError::Impossible {
                guest: last,
                bytes: 0,
            })?
        };
        Ok(())
    }
}

/// A part of a file, mapped shared, readable and writable.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and is only reached through VolatileSlice.
unsafe impl Send for Mapping {}

// SAFETY: as above; nothing of it changes before it is dropped.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(place: Place, file: &File) -> Result<Self, MemoryError> {
        let Place {
            guest,
            bytes,
            offset,
            ..
        } = place;
        let impossible = || MemoryError::Impossible { guest, bytes };
        let length = usize::try_from(bytes)
            .ok()
            .filter(|&length| length > 0)
            .ok_or_else(impossible)?;
        guest.checked_add(bytes).ok_or_else(impossible)?;
        place.user.checked_add(bytes).ok_or_else(impossible)?;
        let end = offset.checked_add(bytes).ok_or_else(impossible)?;
        let failed = |source| MemoryError::Map { guest, source };
        if file.metadata().map_err(failed)?.len() < end {
            return Err(MemoryError::ShortFile { guest });
        }
        let protection = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        let flags = rustix::mm::MapFlags::SHARED | rustix::mm::MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the address, so no memory in use is replaced.
        let start =
            unsafe { rustix::mm::mmap(ptr::null_mut(), length, protection, flags, file, offset) };
        let start = start.map_err(|errno| failed(errno.into()))?;
        let start = NonNull::new(start.cast()).ok_or_else(impossible)?;
        Ok(Self {
            start,
            bytes: length,
        })
    }

    /// Returns a view that does not own the mapping.
    fn view(&self) -> MmapRegion {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: start and bytes are those of a live mapping, which outlives the view: `Memory` drops or replaces
        // its map before it drops a region.
        let view =
            unsafe { MmapRegion::build_raw(self.start.as_ptr(), self.bytes, protection, flags) };
        view.expect("mmap returns page-aligned addresses")
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by new() and no view of it is left (see view()). A failure cannot be
        // acted on, and would leave it mapped.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A part of a file that is not the guest's, mapped shared.
#[derive(Debug)]
pub(crate) struct Shared {
    // Dropped before the mapping it points into.
    view: MmapRegion,
    mapping: Mapping,
}

impl Shared {
    /// Maps `bytes` of `file` from `offset` on.
    pub(crate) fn new(file: &File, offset: u64, bytes: u64) -> Result<Self, MemoryError> {
        let (guest, user) = (0, 0);
        let place = Place {
            guest,
            user,
            bytes,
            offset,
        };
        let mapping = Mapping::new(place, file)?;
        Ok(Self {
            view: mapping.view(),
            mapping,
        })
    }

    /// Returns its bytes.
    pub(crate) fn slice(&self) -> VolatileSlice<'_> {
        self.view.as_volatile_slice()
    }

    /// Returns how many bytes there are.
    pub(crate) fn bytes(&self) -> usize {
        self.mapping.bytes
    }

    /// Writes `bytes` to its start.
    pub(crate) fn write(&self, bytes: &[u8]) {
        self.slice().copy_from(bytes);
    }
}

/// Reads once from `fd` into `slices`, in order; returns how many bytes came.
///
/// # Errors
/// What readv(2) says, `WouldBlock` included.
pub fn read_some(fd: impl AsFd, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let vectors = vectors(slices);
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: every vector is a live mapping or buffer for as long as `slices` is borrowed; the guest may write to
    // it at the same time, which VolatileSlice allows for.
    check(unsafe { libc::readv(fd, vectors.as_ptr(), count(&vectors)) })
}

/// Writes `slices` once to `fd`, in order; returns how many bytes went.
///
/// # Errors
/// What writev(2) says, `WouldBlock` included.
pub fn write_some(fd: impl AsFd, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let vectors = vectors(slices);
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: as in read_some().
    check(unsafe { libc::writev(fd, vectors.as_ptr(), count(&vectors)) })
}

/// Reads once from `fd` at `offset` into `slices`; returns how many bytes came.
///
/// # Errors
/// What preadv(2) says.
pub fn read_at(fd: impl AsFd, slices: &[VolatileSlice<'_>], offset: i64) -> io::Result<usize> {
    let vectors = vectors(slices);
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: as in read_some().
    check(unsafe { libc::preadv(fd, vectors.as_ptr(), count(&vectors), offset) })
}

/// Reads once from `fd` at `offset` into `slices` what is in the page cache; returns how many bytes came.
///
/// # Errors
/// What preadv2(2) says: `WouldBlock` if it would have to wait.
pub fn read_cached_at(
    fd: impl AsFd,
    slices: &[VolatileSlice<'_>],
    offset: i64,
) -> io::Result<usize> {
    let vectors = vectors(slices);
    let fd = fd.as_fd().as_raw_fd();
    let (first, count) = (vectors.as_ptr(), count(&vectors));
    // SAFETY: as in read_some().
    check(unsafe { libc::preadv2(fd, first, count, offset, libc::RWF_NOWAIT) })
}

/// Writes `slices` once to `fd` at `offset`; returns how many bytes went.
///
/// # Errors
/// What pwritev(2) says.
pub fn write_at(fd: impl AsFd, slices: &[VolatileSlice<'_>], offset: i64) -> io::Result<usize> {
    let vectors = vectors(slices);
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: as in read_some().
    check(unsafe { libc::pwritev(fd, vectors.as_ptr(), count(&vectors), offset) })
}

/// Returns the first [`MAX_VECTORS`] slices as the kernel wants them.
#[must_use]
pub fn vectors(slices: &[VolatileSlice<'_>]) -> Vec<libc::iovec> {
    let vector = |slice: &VolatileSlice<'_>| libc::iovec {
        iov_base: slice.ptr_guard_mut().as_ptr().cast(),
        iov_len: slice.len(),
    };
    slices.iter().take(MAX_VECTORS).map(vector).collect()
}

fn count(vectors: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(vectors.len()).expect("vectors() returns at most MAX_VECTORS")
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_negative| io::Error::last_os_error())
}
