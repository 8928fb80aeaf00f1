//! Writes the members of an archive beneath one directory, whatever they are called and whatever links earlier
//! members have made.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    chownat, fchmod, fsetxattr, linkat, mkdirat, mknodat, openat, statat, statvfs, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::super::rootfs::{Owner, Rootfs};

/// Members of one image: ten times what a full desktop has.
const MEMBERS_MAX: u64 = 4_000_000;

/// Longest path of a member (PATH_MAX of linux/limits.h).
const PATH_MAX: usize = 4096;

/// Largest value of an extended attribute (XATTR_SIZE_MAX of linux/limits.h).
const XATTR_MAX: usize = 64 << 10;

const PLAIN: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Symlink(PathBuf),
    /// Another name of an earlier member.
    Hardlink(PathBuf),
    Fifo,
    /// overlayfs's mark of a removed file.
    Whiteout,
}

/// What is known of a member beside its name and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kind: Kind,
    pub(super) owner: Owner,
    /// Bytes of a file's content.
    pub(super) length: u64,
    /// Seconds since the epoch.
    pub(super) modified_s: u64,
    pub(super) attributes: Vec<(OsString, Vec<u8>)>,
}

/// A directory being filled.
#[derive(Debug)]
pub(super) struct Tree {
    rootfs: Rootfs,
    members: u64,
    /// Bytes that files may still hold: what the disk has room for. Some bytes of an archive can stand for
    /// terabytes of zeros, which take little room on a disk that compresses, and hours to write.
    left: u64,
    /// The directory of the last member: the next one is most often in it too.
    last: Option<(PathBuf, OwnedFd)>,
}

impl Tree {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            rootfs: Rootfs::open(path)?,
            members: 0,
            left: room(path)?,
            last: None,
        })
    }

    /// Returns how many members were written.
    pub(super) fn members(&self) -> u64 {
        self.members
    }

    /// Writes one member in place of whatever has its name.
    pub(super) fn put(&mut self, path: &Path, facts: &Facts, content: impl Read) -> io::Result<()> {
        self.members += 1;
        if self.members > MEMBERS_MAX {
            return Err(refused("the archive has too many members"));
        }
        let path = inside(path)?;
        let Some(name) = path.file_name() else {
            // The top itself: its owner and mode are the image's to say.
            return own(self.rootfs.open_at(".", OFlags::RDONLY)?.as_fd(), facts);
        };
        let above = self.above(&path)?;
        match &facts.kind {
            Kind::Directory => directory(above.as_fd(), name, facts)?,
            Kind::File => {
                self.left = self.left.checked_sub(facts.length).ok_or_else(too_much)?;
                let made = create(above.as_fd(), name)?;
                io::copy(&mut content.take(facts.length), &mut &made)?;
                own(made.as_fd(), facts)?;
            }
            Kind::Symlink(target) => {
                clear(above.as_fd(), name)?;
                symlinkat(target, &above, name)?;
            }
            Kind::Hardlink(target) => self.link(target, above.as_fd(), name)?,
            Kind::Fifo | Kind::Whiteout => {
                clear(above.as_fd(), name)?;
                let is_fifo = facts.kind == Kind::Fifo;
                let kind = if is_fifo {
                    FileType::Fifo
                } else {
                    FileType::CharacterDevice
                };
                mknodat(&above, name, kind, Mode::from_raw_mode(facts.owner.mode), 0)?;
            }
        }
        if matches!(facts.kind, Kind::Symlink(_) | Kind::Fifo | Kind::Whiteout) {
            let (uid, gid) = (
                Uid::from_raw(facts.owner.uid),
                Gid::from_raw(facts.owner.gid),
            );
            chownat(
                &above,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        if !matches!(facts.kind, Kind::Hardlink(_)) {
            date(above.as_fd(), name, facts.modified_s)?;
        }
        Ok(())
    }

    /// Removes what is at `path`, a directory with all that it holds.
    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let path = inside(path)?;
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        let above = self.above(&path)?;
        self.last = None;
        clear(above.as_fd(), name)
    }

    /// Empties the directory at `path`.
    pub(super) fn empty(&mut self, path: &Path) -> io::Result<()> {
        let path = inside(path)?;
        self.last = None;
        let directory = self.rootfs.make_directory(&path, Owner::root(0o755))?;
        empty(&directory)
    }

    fn link(&self, target: &Path, above: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let target = inside(target)?;
        let (Some(old), Some(folder)) = (target.file_name(), target.parent()) else {
            return Err(refused("a hard link leads to the top directory"));
        };
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let folder = self
            .rootfs
            .open_at(folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let (from, to) = (stat(folder.as_fd(), old)?, stat(above, name)?);
        if let (Some(from), Some(to)) = (from, to)
            && (from.st_dev, from.st_ino) == (to.st_dev, to.st_ino)
        {
            return Ok(());
        }
        clear(above, name)?;
        linkat(&folder, old, above, name, AtFlags::empty()).map_err(Into::into)
    }

    /// Opens the directory that `path` lies in, made when no member has said what it is like.
    fn above(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let folder = path.parent().unwrap_or(Path::new(""));
        if let Some((last, fd)) = &self.last
            && last == folder
        {
            return fd.try_clone();
        }
        let fd = self.rootfs.make_directory(folder, Owner::root(0o755))?;
        self.last = Some((folder.to_owned(), fd.try_clone()?));
        Ok(fd)
    }
}

/// Returns the path from the top; refuses one that leads upwards.
pub(super) fn inside(path: &Path) -> io::Result<PathBuf> {
    if path.as_os_str().len() > PATH_MAX {
        return Err(refused("a member's path is too long"));
    }
    let mut from_top = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => from_top.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(refused("a member's path leads out of the archive"));
            }
        }
    }
    Ok(from_top)
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn stat(above: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<rustix::fs::Stat>> {
    match statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_directory(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn directory(above: BorrowedFd<'_>, name: &OsStr, facts: &Facts) -> io::Result<()> {
    if !stat(above, name)?.as_ref().is_some_and(is_directory) {
        clear(above, name)?;
        mkdirat(above, name, Mode::RWXU)?;
    }
    let made = openat(above, name, PLAIN | OFlags::DIRECTORY, Mode::empty())?;
    own(made.as_fd(), facts)
}

fn create(above: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    clear(above, name)?;
    let flags = PLAIN | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    Ok(openat(above, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Returns the bytes that are free on the disk that `path` lies on.
pub(super) fn room(path: &Path) -> io::Result<u64> {
    let sizes = statvfs(path)?;
    Ok(sizes.f_bavail.saturating_mul(sizes.f_frsize))
}

/// The error of an archive that holds more than [`room`].
pub(super) fn too_much() -> io::Error {
    let why = "the archive holds more than the disk has room for";
    io::Error::new(io::ErrorKind::StorageFull, why)
}

/// Sets owner, attributes and mode, in this order: a change of owner takes set-user-ID and capabilities away.
fn own(made: BorrowedFd<'_>, facts: &Facts) -> io::Result<()> {
    let Owner { uid, gid, mode } = facts.owner;
    rustix::fs::fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    for (name, value) in &facts.attributes {
        if is_kept(name) && value.len() <= XATTR_MAX {
            match fsetxattr(made, name, value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    fchmod(made, Mode::from_raw_mode(mode & 0o7777)).map_err(Into::into)
}

/// Attributes that mean something inside a container.
fn is_kept(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name == b"security.capability"
        || name.starts_with(b"user.")
        || name.starts_with(b"system.posix_acl_")
}

fn date(above: BorrowedFd<'_>, name: &OsStr, modified_s: u64) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: i64::try_from(modified_s).unwrap_or_default(),
            tv_nsec: 0,
        },
    };
    utimensat(above, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into)
}

/// Removes `name`, whatever it is.
fn clear(above: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match stat(above, name)? {
        None => Ok(()),
        Some(there) if is_directory(&there) => {
            let inner = openat(above, name, PLAIN | OFlags::DIRECTORY, Mode::empty())?;
            empty(&inner)?;
            unlinkat(above, name, AtFlags::REMOVEDIR).map_err(Into::into)
        }
        Some(_) => unlinkat(above, name, AtFlags::empty()).map_err(Into::into),
    }
}

/// Removes everything in a directory. Depth is bounded by the paths that made it ([`PATH_MAX`]).
fn empty(directory: &OwnedFd) -> io::Result<()> {
    let names: Vec<OsString> = Dir::read_from(directory)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            (name != "." && name != "..").then(|| name.to_owned())
        })
        .collect();
    names
        .iter()
        .try_for_each(|name| clear(directory.as_fd(), name))
}
