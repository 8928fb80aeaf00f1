//! Reads and writes files of a container's root file system, whose links and names are the container's to
//! choose: every path is resolved by the kernel as if that directory were `/` (openat2(2), RESOLVE_IN_ROOT).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, fchown, fstat,
    mkdirat, openat2, readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

/// Largest file that is read into memory: account files and the like.
const FILE_MAX: u64 = 4 << 20;

/// The kernel gives up on a lookup that races with renames; this many tries are plenty for one that does not.
const TRIES: u32 = 8;

/// Who a new file belongs to and what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

impl Owner {
    /// Root's, with `mode`.
    pub(crate) const fn root(mode: u32) -> Self {
        Self {
            uid: 0,
            gid: 0,
            mode,
        }
    }
}

/// A directory that is `/` to a container.
#[derive(Debug)]
pub(crate) struct Rootfs(OwnedFd);

impl Rootfs {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens `path` inside, following links inside only.
    pub(crate) fn open_at(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match openat2(
                &self.0,
                path.as_ref(),
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                Err(Errno::AGAIN) => {}
                other => return other.map_err(Into::into),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Returns what regular file `path` holds.
    pub(crate) fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let file = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let mut bytes = Vec::new();
        File::from(file)
            .take(FILE_MAX + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }

    /// Returns whether something is at `path`, links followed.
    pub(crate) fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.open_at(path, OFlags::PATH).is_ok()
    }

    /// Returns the last name of the file that `path` is in the end, `None` when there is none.
    pub(crate) fn resolved_name(&self, path: impl AsRef<Path>) -> Option<String> {
        let file = self.open_at(path, OFlags::PATH).ok()?;
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let target = PathBuf::from(OsStr::from_bytes(
            readlinkat(CWD, link, Vec::new()).ok()?.as_bytes(),
        ));
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// Puts a file with `bytes` at `path` in one step, in place of whatever was there, a link too. Its directory
    /// is made when it is missing.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8], owner: Owner) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        let new = temporary(name);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = || -> io::Result<()> {
            let file = rustix::fs::openat(&directory, &new, flags, Mode::RUSR | Mode::WUSR)?;
            fchown(
                &file,
                Some(Uid::from_raw(owner.uid)),
                Some(Gid::from_raw(owner.gid)),
            )?;
            fchmod(&file, Mode::from_raw_mode(owner.mode))?;
            File::from(file).write_all(bytes)?;
            renameat(&directory, &new, &directory, name).map_err(Into::into)
        };
        let _ = unlinkat(&directory, &new, AtFlags::empty());
        write().inspect_err(|_| {
            let _ = unlinkat(&directory, &new, AtFlags::empty());
        })
    }

    /// Changes what regular file `path` holds, keeping its owner and mode; `missing` is the owner of a new one.
    pub(crate) fn edit(
        &self,
        path: &Path,
        missing: Owner,
        change: impl FnOnce(Vec<u8>) -> Vec<u8>,
    ) -> io::Result<()> {
        let (bytes, owner) = match self.open_at(path, OFlags::PATH) {
            Ok(file) => {
                let stat = fstat(&file)?;
                let owner = Owner {
                    uid: stat.st_uid,
                    gid: stat.st_gid,
                    mode: stat.st_mode & 0o7777,
                };
                (self.read(path)?, owner)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), missing),
            Err(error) => return Err(error),
        };
        let changed = change(bytes.clone());
        if changed == bytes {
            Ok(())
        } else {
            self.replace(path, &changed, owner)
        }
    }

    /// Puts a link to `target` at `path` in one step, in place of whatever was there.
    pub(crate) fn replace_link(&self, path: &Path, target: &Path) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        let new = temporary(name);
        let _ = unlinkat(&directory, &new, AtFlags::empty());
        symlinkat(target, &directory, &new)?;
        renameat(&directory, &new, &directory, name).map_err(Into::into)
    }

    /// Makes directory `path` and those above it that are missing, all with `owner`; returns it opened.
    pub(crate) fn make_directory(&self, path: &Path, owner: Owner) -> io::Result<OwnedFd> {
        let mut reached = PathBuf::new();
        let directory = OFlags::RDONLY | OFlags::DIRECTORY;
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    let above = self.open_at(or_root(&reached), directory)?;
                    reached.push(name);
                    make(above.as_fd(), name, owner)?;
                }
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
            }
        }
        self.open_at(or_root(&reached), directory)
    }

    /// Returns the directory of `path`, made when missing, and the last name of it.
    pub(crate) fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let above = path.parent().unwrap_or(Path::new(""));
        Ok((self.make_directory(above, Owner::root(0o755))?, name))
    }
}

impl AsFd for Rootfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes directory `name` in `above` unless something is there.
fn make(above: BorrowedFd<'_>, name: &OsStr, owner: Owner) -> io::Result<()> {
    match mkdirat(above, name, Mode::from_raw_mode(owner.mode)) {
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            chownat(above, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            let made = statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if made.st_mode & 0o7777 != owner.mode {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = rustix::fs::openat(above, name, flags, Mode::empty())?;
                fchmod(directory, Mode::from_raw_mode(owner.mode))?;
            }
            Ok(())
        }
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn or_root(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

fn temporary(name: &OsStr) -> std::ffi::OsString {
    let mut new = std::ffi::OsString::from(".testudo-");
    // Names may use the whole length that the file system allows.
    new.push(OsStr::from_bytes(&name.as_bytes()[..name.len().min(200)]));
    new
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    struct Fixture {
        outside: tempfile::TempDir,
        rootfs: Rootfs,
        inside: PathBuf,
        owner: Owner,
    }

    fn fixture() -> Fixture {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        let inside = outside.path().join("rootfs");
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        let meta = std::fs::metadata(&inside).unwrap();
        let owner = Owner {
            uid: meta.uid(),
            gid: meta.gid(),
            mode: 0o640,
        };
        Fixture {
            rootfs: Rootfs::open(&inside).unwrap(),
            outside,
            inside,
            owner,
        }
    }

    #[test]
    fn links_never_lead_out() {
        let f = fixture();
        symlink(f.outside.path().join("secret"), f.inside.join("absolute")).unwrap();
        symlink("../secret", f.inside.join("relative")).unwrap();
        symlink("../../../../etc", f.inside.join("up")).unwrap();
        for path in ["absolute", "relative", "../secret", "up/../../secret"] {
            assert!(f.rootfs.read(path).is_err(), "{path} was read");
        }
        std::fs::write(f.inside.join("etc/passwd"), "inside").unwrap();
        assert_eq!(f.rootfs.read("up/passwd").unwrap(), b"inside");
        assert_eq!(f.rootfs.read("/etc/passwd").unwrap(), b"inside");
    }

    #[test]
    fn a_link_is_replaced_and_not_written_through() {
        let f = fixture();
        symlink("../../secret", f.inside.join("etc/resolv.conf")).unwrap();
        f.rootfs
            .replace(Path::new("etc/resolv.conf"), b"new", f.owner)
            .unwrap();
        assert_eq!(
            std::fs::read(f.outside.path().join("secret")).unwrap(),
            b"secret"
        );
        assert_eq!(f.rootfs.read("etc/resolv.conf").unwrap(), b"new");
        let meta = std::fs::symlink_metadata(f.inside.join("etc/resolv.conf")).unwrap();
        assert_eq!((meta.is_file(), meta.mode() & 0o777), (true, 0o640));
    }

    #[test]
    fn a_directory_that_is_a_link_leads_inside() {
        let f = fixture();
        symlink(f.outside.path(), f.inside.join("var")).unwrap();
        // The link's target exists outside only; inside it does not, and making it there is refused too.
        let result = f.rootfs.replace(Path::new("var/new"), b"x", f.owner);
        assert!(result.is_err());
        assert!(!f.outside.path().join("new").exists());
    }

    #[test]
    fn editing_keeps_owner_and_mode() {
        let f = fixture();
        let path = Path::new("etc/group");
        f.rootfs.replace(path, b"a\n", f.owner).unwrap();
        f.rootfs
            .edit(path, Owner::root(0o600), |b| [b, b"b\n".to_vec()].concat())
            .unwrap();
        assert_eq!(f.rootfs.read(path).unwrap(), b"a\nb\n");
        assert_eq!(
            std::fs::metadata(f.inside.join("etc/group"))
                .unwrap()
                .mode()
                & 0o777,
            0o640
        );
    }

    #[test]
    fn what_is_not_a_file_or_too_large_is_not_read() {
        let f = fixture();
        assert!(f.rootfs.read("etc").is_err());
        let large = File::create(f.inside.join("large")).unwrap();
        large.set_len(FILE_MAX + 1).unwrap();
        assert_eq!(
            f.rootfs.read("large").unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
    }

    #[test]
    fn the_name_behind_links_is_found() {
        let f = fixture();
        std::fs::create_dir_all(f.inside.join("lib/systemd")).unwrap();
        std::fs::write(f.inside.join("lib/systemd/systemd"), "").unwrap();
        symlink("../lib/systemd/systemd", f.inside.join("etc/init")).unwrap();
        assert_eq!(
            f.rootfs.resolved_name("etc/init").as_deref(),
            Some("systemd")
        );
        assert_eq!(f.rootfs.resolved_name("sbin/init"), None);
    }
}
