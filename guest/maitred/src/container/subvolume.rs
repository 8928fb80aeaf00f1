//! Whole trees of subvolumes: a container may nest its own in its root file system, and they are copied and
//! deleted with it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, unlinkat};

/// A subvolume's root has this inode number and nothing else on btrfs has.
const ROOT_INODE: u64 = 256;

/// Nested subvolumes are followed this deep; deeper ones stay empty in copies, and keep their container from
/// being deleted until they are removed inside.
const DEPTH_MAX: u32 = 64;

/// Makes an empty subvolume at `path`.
pub(super) fn create(path: &Path) -> io::Result<()> {
    let (parent, name) = split(path)?;
    sys::btrfs::create(parent, name)
}

/// Makes at `to` what the subvolume at `from` holds now, nested subvolumes too.
pub(super) fn snapshot(from: &Path, to: &Path) -> io::Result<()> {
    let source = directory(from)?;
    let (parent, name) = split(to)?;
    copy(&source.into(), &parent.into(), name.as_ref(), DEPTH_MAX)
}

/// Makes the subvolume at `path` read-only, or writable.
pub(super) fn set_read_only(path: &Path, read_only: bool) -> io::Result<()> {
    sys::btrfs::set_read_only(directory(path)?, read_only)
}

fn copy(source: &OwnedFd, parent: &OwnedFd, name: &Path, depth: u32) -> io::Result<()> {
    sys::btrfs::snapshot(source, parent, name.as_os_str(), false)?;
    if depth == 0 {
        return Ok(());
    }
    let made = beneath(parent, name)?;
    for nested in sys::btrfs::nested(source)? {
        // The container may run and move things meanwhile; what is not where it was is left out.
        let Ok(inner) = beneath(source, &nested.path) else {
            continue;
        };
        let above = nested
            .path
            .parent()
            .filter(|path| !path.as_os_str().is_empty());
        let Ok(above) = beneath(&made, above.unwrap_or(Path::new("."))) else {
            continue;
        };
        let Some(name) = nested.path.file_name() else {
            continue;
        };
        // The copy has an empty directory in the nested one's place.
        if unlinkat(&above, name, AtFlags::REMOVEDIR).is_ok() {
            copy(&inner, &above, name.as_ref(), depth - 1)?;
        }
    }
    Ok(())
}

/// Deletes the subvolume at `path` with everything nested in it.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    let (parent, name) = split(path)?;
    remove(&parent.into(), name.as_ref(), DEPTH_MAX)
}

fn remove(parent: &OwnedFd, name: &Path, depth: u32) -> io::Result<()> {
    let doomed = beneath(parent, name)?;
    let nested = sys::btrfs::nested(&doomed)?;
    if depth > 0 && !nested.is_empty() {
        sys::btrfs::set_read_only(&doomed, false)?;
        for nested in nested {
            let above = nested
                .path
                .parent()
                .filter(|path| !path.as_os_str().is_empty());
            let above = beneath(&doomed, above.unwrap_or(Path::new(".")))?;
            if let Some(name) = nested.path.file_name() {
                remove(&above, name.as_ref(), depth - 1)?;
            }
        }
    }
    drop(doomed);
    sys::btrfs::delete(parent, name.as_os_str())
}

/// Removes a directory of ours: files, directories and subvolumes in it.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return std::fs::remove_file(path);
    }
    if meta.ino() == ROOT_INODE {
        return delete(path);
    }
    for entry in std::fs::read_dir(path)? {
        remove_all(&entry?.path())?;
    }
    std::fs::remove_dir(path)
}

/// Returns the numbers of the subvolume at `path` and of those directly in it.
pub(super) fn numbers(path: &Path) -> io::Result<Vec<u64>> {
    let root = directory(path)?;
    let mut all = vec![sys::btrfs::subvolume_id(&root)?];
    all.extend(
        sys::btrfs::nested(&root)?
            .into_iter()
            .map(|nested| nested.id),
    );
    Ok(all)
}

fn directory(path: &Path) -> io::Result<File> {
    File::open(path)
}

fn beneath(above: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(above.as_fd(), path, flags, Mode::empty(), resolve).map_err(Into::into)
}

fn split(path: &Path) -> io::Result<(File, &std::ffi::OsStr)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Ok((directory(parent)?, name))
}
