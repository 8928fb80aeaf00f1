//! Makes a home directory from the image's `/etc/skel`.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, mkdirat, openat,
    readlinkat, statat, symlinkat,
};

use super::rootfs::{Owner, Rootfs};

/// A skeleton has a handful of small files. An image that brings more than this gets a home without the rest.
const ENTRIES_MAX: u32 = 4096;
const BYTES_MAX: u64 = 64 << 20;
const DEPTH_MAX: u32 = 32;

const OPEN: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// What may still be copied.
struct Budget {
    entries: u32,
    bytes: u64,
}

/// Makes directory `home`, its files from the skeleton, all belonging to `owner`. One that exists is kept.
pub(super) fn copy(rootfs: &Rootfs, home: &Path, owner: Owner) -> io::Result<()> {
    if rootfs.exists(home) {
        return Ok(());
    }
    let (above, name) = rootfs.parent(home)?;
    let to = directory(above.as_fd(), name, owner)?;
    let Ok(from) = rootfs.open_at("etc/skel", OFlags::RDONLY | OFlags::DIRECTORY) else {
        return Ok(());
    };
    let mut budget = Budget {
        entries: ENTRIES_MAX,
        bytes: BYTES_MAX,
    };
    tree(&from, &to, owner, (&mut budget, DEPTH_MAX))
}

fn tree(
    from: &OwnedFd,
    to: &OwnedFd,
    owner: Owner,
    (budget, depth): (&mut Budget, u32),
) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        if budget.entries == 0 {
            return Ok(());
        }
        budget.entries -= 1;
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let owner = Owner {
            mode: stat.st_mode & 0o777,
            ..owner
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth > 0 => {
                let inner = openat(from, name, OPEN | OFlags::DIRECTORY, Mode::empty())?;
                tree(
                    &inner,
                    &directory(to.as_fd(), name, owner)?,
                    owner,
                    (budget, depth - 1),
                )?;
            }
            FileType::RegularFile => file(from, to, name, (owner, budget))?,
            FileType::Symlink => {
                symlinkat(readlinkat(from, name, Vec::new())?, to, name)?;
                let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
                chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn file(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &OsStr,
    (owner, budget): (Owner, &mut Budget),
) -> io::Result<()> {
    let source = openat(from, name, OPEN, Mode::empty())?;
    let flags = OPEN | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let target = openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    own(target.as_fd(), owner)?;
    let mut source = io::Read::take(File::from(source), budget.bytes);
    budget.bytes -= io::copy(&mut source, &mut File::from(target))?;
    Ok(())
}

fn directory(above: BorrowedFd<'_>, name: &OsStr, owner: Owner) -> io::Result<OwnedFd> {
    mkdirat(above, name, Mode::RWXU)?;
    let made = openat(above, name, OPEN | OFlags::DIRECTORY, Mode::empty())?;
    own(made.as_fd(), owner)?;
    Ok(made)
}

fn own(file: BorrowedFd<'_>, owner: Owner) -> io::Result<()> {
    fchown(
        file,
        Some(Uid::from_raw(owner.uid)),
        Some(Gid::from_raw(owner.gid)),
    )?;
    fchmod(file, Mode::from_raw_mode(owner.mode)).map_err(Into::into)
}
