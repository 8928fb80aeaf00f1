//! Subvolumes, snapshots, size and health of a btrfs file system, by its ioctls: no program is started for any
//! of it.
//!
//! Structures and numbers are those of the kernel's `include/uapi/linux/btrfs.h` and `btrfs_tree.h`.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: btrfs ioctls, each with the structure that its number implies"
)]

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};

const MAGIC: u8 = 0x94;
/// Bytes of a name in `btrfs_ioctl_vol_args_v2`, with the final zero.
const NAME_SIZE: usize = 4040;
/// A subvolume's own directory always has this number (`BTRFS_FIRST_FREE_OBJECTID`).
const ROOT_INODE: u64 = 256;
/// The tree of trees, where subvolumes are listed (`BTRFS_ROOT_TREE_OBJECTID`).
const ROOT_TREE: u64 = 1;
/// Item that says in which directory of its parent a subvolume hangs (`BTRFS_ROOT_REF_KEY`).
const ROOT_REF: u32 = 156;
const READ_ONLY: u64 = 2;
const SEARCH_BUFFER: usize = 3992;
const LOOKUP_PATH: usize = 4080;

#[repr(C)]
struct VolumeArguments {
    fd: i64,
    name: [u8; 4088],
}

#[repr(C)]
struct VolumeArguments2 {
    fd: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; NAME_SIZE],
}

#[repr(C)]
struct LookupArguments {
    tree: u64,
    object: u64,
    name: [u8; LOOKUP_PATH],
}

#[repr(C)]
struct SearchArguments {
    tree: u64,
    object_min: u64,
    object_max: u64,
    offset_min: u64,
    offset_max: u64,
    transaction_min: u64,
    transaction_max: u64,
    type_min: u32,
    type_max: u32,
    items: u32,
    unused: u32,
    unused_more: [u64; 4],
    buffer: [u8; SEARCH_BUFFER],
}

#[repr(C)]
struct DeviceStatistics {
    device: u64,
    items: u64,
    flags: u64,
    values: [u64; 5],
    unused: [u64; 121],
}

#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

const SNAP_DESTROY: Opcode = opcode::write::<VolumeArguments>(MAGIC, 15);
const RESIZE: Opcode = opcode::write::<VolumeArguments>(MAGIC, 3);
const TREE_SEARCH: Opcode = opcode::read_write::<SearchArguments>(MAGIC, 17);
const INO_LOOKUP: Opcode = opcode::read_write::<LookupArguments>(MAGIC, 18);
const SNAP_CREATE_V2: Opcode = opcode::write::<VolumeArguments2>(MAGIC, 23);
const SUBVOL_CREATE_V2: Opcode = opcode::write::<VolumeArguments2>(MAGIC, 24);
const SUBVOL_SETFLAGS: Opcode = opcode::write::<u64>(MAGIC, 26);
const QUOTA_CTL: Opcode = opcode::read_write::<QuotaControl>(MAGIC, 40);
const GET_DEV_STATS: Opcode = opcode::read_write::<DeviceStatistics>(MAGIC, 52);

/// `BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA`: extents belong to the subvolume that wrote them.
const QUOTA_ENABLE_SIMPLE: u64 = 4;

/// A subvolume that hangs somewhere in another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nested {
    /// Its number in the file system.
    pub id: u64,
    /// Where it hangs, from the outer subvolume's root.
    pub path: PathBuf,
}

/// Makes the empty subvolume `name` in directory `parent`.
///
/// # Errors
/// When it exists, the name is too long, or this is not btrfs.
pub fn create(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    let arguments = arguments_v2(name, 0, 0)?;
    give::<SUBVOL_CREATE_V2, _>(parent, arguments)
}

/// Makes `name` in directory `parent`: what the subvolume at `source` holds now, without copying. Subvolumes
/// nested in it become empty directories.
///
/// # Errors
/// As [`create`]; also when `source` is not a subvolume's root.
pub fn snapshot(
    source: impl AsFd,
    parent: impl AsFd,
    name: &OsStr,
    read_only: bool,
) -> io::Result<()> {
    let flags = if read_only { READ_ONLY } else { 0 };
    let arguments = arguments_v2(name, i64::from(source.as_fd().as_raw_fd()), flags)?;
    give::<SNAP_CREATE_V2, _>(parent, arguments)
}

/// Deletes the subvolume `name` in directory `parent`; its space comes back in the background.
///
/// # Errors
/// `DirectoryNotEmpty` when subvolumes are nested in it.
pub fn delete(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    let mut arguments = Box::new(VolumeArguments {
        fd: 0,
        name: [0; 4088],
    });
    put(&mut arguments.name, name.as_bytes())?;
    give::<SNAP_DESTROY, _>(parent, *arguments)
}

/// Makes the subvolume at `root` read-only, or writable.
///
/// # Errors
/// When `root` is not a subvolume's root.
pub fn set_read_only(root: impl AsFd, read_only: bool) -> io::Result<()> {
    let flags: u64 = if read_only { READ_ONLY } else { 0 };
    give::<SUBVOL_SETFLAGS, _>(root, flags)
}

/// Lets the file system use all of its first device. Does nothing when it does already.
///
/// # Errors
/// When another resize or balance runs, or this is not btrfs.
pub fn grow(mount: impl AsFd) -> io::Result<()> {
    let mut arguments = Box::new(VolumeArguments {
        fd: 0,
        name: [0; 4088],
    });
    put(&mut arguments.name, b"1:max")?;
    give::<RESIZE, _>(mount, *arguments)
}

/// Makes the request `OPCODE` with `argument`, which must be the structure of `linux/btrfs.h` that it takes.
fn give<const OPCODE: Opcode, T>(file: impl AsFd, argument: T) -> io::Result<()> {
    // SAFETY: every caller above pairs the number with its structure.
    let request = unsafe { Setter::<OPCODE, T>::new(argument) };
    // SAFETY: the structure outlives the call, which writes nothing to it; a descriptor in it is borrowed.
    unsafe { ioctl(file, request) }?;
    Ok(())
}

/// Returns the read, write, flush, corruption and generation errors of the first device since the file system
/// was made, summed.
///
/// # Errors
/// When this is not btrfs.
pub fn device_errors(mount: impl AsFd) -> io::Result<u64> {
    let mut statistics = DeviceStatistics {
        device: 1,
        items: 5,
        flags: 0,
        values: [0; 5],
        unused: [0; 121],
    };
    // SAFETY: the number reads and writes this structure, which lives on this frame.
    let update = unsafe { Updater::<GET_DEV_STATS, _>::new(&mut statistics) };
    // SAFETY: as above.
    unsafe { ioctl(mount, update) }?;
    Ok(statistics
        .values
        .iter()
        .fold(0, |sum, value| sum.saturating_add(*value)))
}

/// Starts the accounting of space by subvolume (simple quotas, Linux 6.7). Does nothing when it runs already.
///
/// # Errors
/// When the kernel has no simple quotas or this is not btrfs.
pub fn enable_accounting(mount: impl AsFd) -> io::Result<()> {
    let mut control = QuotaControl {
        command: QUOTA_ENABLE_SIMPLE,
        status: 0,
    };
    // SAFETY: the number reads and writes this structure, which lives on this frame.
    let update = unsafe { Updater::<QUOTA_CTL, _>::new(&mut control) };
    // SAFETY: as above.
    unsafe { ioctl(mount, update) }?;
    Ok(())
}

/// Returns the number of the subvolume that `file` lies in.
///
/// # Errors
/// When this is not btrfs.
pub fn subvolume_id(file: impl AsFd) -> io::Result<u64> {
    Ok(lookup(file.as_fd(), 0, ROOT_INODE)?.0)
}

/// Returns the subvolumes that hang directly in the one at `root`.
///
/// # Errors
/// When this is not btrfs or the caller may not search trees.
pub fn nested(root: impl AsFd) -> io::Result<Vec<Nested>> {
    let root = root.as_fd();
    let outer = subvolume_id(root)?;
    let mut found = Vec::new();
    let mut offset_min = 0;
    loop {
        let mut search = Box::new(SearchArguments {
            tree: ROOT_TREE,
            object_min: outer,
            object_max: outer,
            offset_min,
            offset_max: u64::MAX,
            transaction_min: 0,
            transaction_max: u64::MAX,
            type_min: ROOT_REF,
            type_max: ROOT_REF,
            items: 4096,
            unused: 0,
            unused_more: [0; 4],
            buffer: [0; SEARCH_BUFFER],
        });
        // SAFETY: the number reads and writes this structure, which the box keeps alive.
        let update = unsafe { Updater::<TREE_SEARCH, _>::new(&mut *search) };
        // SAFETY: as above.
        unsafe { ioctl(root, update) }?;
        let references = references(&search.buffer, search.items);
        let Some(last) = references.last() else {
            return Ok(found);
        };
        offset_min = last.child + 1;
        for reference in references {
            let (_, directory) = lookup(root, outer, reference.directory)?;
            let path = PathBuf::from(OsStr::from_bytes(&directory));
            found.push(Nested {
                id: reference.child,
                path: path.join(OsStr::from_bytes(&reference.name)),
            });
        }
    }
}

struct Reference {
    child: u64,
    directory: u64,
    name: Vec<u8>,
}

/// Reads the items of a search: a header (transaction, object, offset: u64; type, length: u32), then a
/// `btrfs_root_ref` (directory, sequence: u64; length: u16) and the name.
fn references(buffer: &[u8], items: u32) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut rest = buffer;
    for _ in 0..items {
        let (Some(child), Some(length)) = (number(rest, 16), rest.get(28..32)) else {
            break;
        };
        let length = u32::from_le_bytes(length.try_into().expect("four bytes were taken")) as usize;
        let Some(item) = rest.get(32..32 + length) else {
            break;
        };
        if let (Some(directory), Some(name)) = (number(item, 0), item.get(18..)) {
            found.push(Reference {
                child,
                directory,
                name: name.to_vec(),
            });
        }
        rest = &rest[32 + length..];
    }
    found
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..at + 8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
}

/// Returns the subvolume's number and the path in it of directory `object`, empty for its root.
fn lookup(file: BorrowedFd<'_>, tree: u64, object: u64) -> io::Result<(u64, Vec<u8>)> {
    let mut arguments = Box::new(LookupArguments {
        tree,
        object,
        name: [0; LOOKUP_PATH],
    });
    // SAFETY: the number reads and writes this structure, which the box keeps alive.
    let update = unsafe { Updater::<INO_LOOKUP, _>::new(&mut *arguments) };
    // SAFETY: as above.
    unsafe { ioctl(file, update) }?;
    let name = CStr::from_bytes_until_nul(&arguments.name)
        .map(CStr::to_bytes)
        .unwrap_or_default();
    Ok((arguments.tree, name.to_vec()))
}

fn arguments_v2(name: &OsStr, fd: i64, flags: u64) -> io::Result<VolumeArguments2> {
    let mut arguments = VolumeArguments2 {
        fd,
        transaction: 0,
        flags,
        unused: [0; 4],
        name: [0; NAME_SIZE],
    };
    put(&mut arguments.name, name.as_bytes())?;
    Ok(arguments)
}

/// Copies a name with its final zero.
fn put(field: &mut [u8], name: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    let name = name.as_bytes_with_nul();
    field
        .get_mut(..name.len())
        .ok_or(io::ErrorKind::InvalidFilename)?
        .copy_from_slice(name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_that_the_kernel_expects() {
        assert_eq!(size_of::<VolumeArguments>(), 4096);
        assert_eq!(size_of::<VolumeArguments2>(), 4096);
        assert_eq!(size_of::<LookupArguments>(), 4096);
        assert_eq!(size_of::<SearchArguments>(), 4096);
        assert_eq!(size_of::<DeviceStatistics>(), 1032);
        assert_eq!(size_of::<QuotaControl>(), 16);
    }

    #[test]
    fn references_are_read_and_a_cut_buffer_ends_them() {
        let mut buffer = Vec::new();
        for (child, name) in [(300_u64, "home"), (301, "srv")] {
            buffer.extend([7_u64, 256, child].iter().flat_map(|n| n.to_le_bytes()));
            buffer.extend(ROOT_REF.to_le_bytes());
            buffer.extend(u32::try_from(18 + name.len()).unwrap().to_le_bytes());
            buffer.extend([260_u64, 1].iter().flat_map(|n| n.to_le_bytes()));
            buffer.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
            buffer.extend(name.as_bytes());
        }
        let found = references(&buffer, 2);
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].child, found[1].directory), (301, 260));
        assert_eq!(found[1].name, b"srv");
        assert_eq!(references(&buffer[..buffer.len() - 1], 2).len(), 1);
    }

    #[test]
    fn a_name_with_a_zero_or_without_room_is_refused() {
        assert!(put(&mut [0; 4], b"a\0b").is_err());
        assert!(put(&mut [0; 4], b"four").is_err());
        let mut field = [9; 4];
        put(&mut field, b"one").unwrap();
        assert_eq!(&field, b"one\0");
    }
}
