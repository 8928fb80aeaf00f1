//! A VM's folder on the host: its data disk and its settings. Everything is built under a temporary name in the
//! same folder and renamed, so nothing half-made ever has a VM's name.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, ioctl_ficlone, renameat_with, statvfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use spec::windows::Modes;
use wire::{Bytes, Fault, Kind, Mib, VmName};

pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod saved;

/// The data disk in a VM's folder.
const DISK: &str = "data.btrfs";
/// The settings in a VM's folder.
const SETTINGS: &str = "vm.toml";
/// The file that a running engine keeps locked.
const LOCK: &str = "lock";

/// Names of unfinished folders begin so; no VM's name does.
const UNFINISHED: &str = ".";

/// Free space on the host that is never given to a disk: the guest's file system would be damaged by a write that
/// fails, and the user's own session needs some.
pub(crate) const RESERVE: Bytes = Bytes(256 << 20);

/// Smallest disk: the template's base container and room for its use.
pub(crate) const SIZE_MIN: Bytes = Bytes(1 << 30);

/// Largest disk: what ext4 on the host takes in one file.
pub(crate) const SIZE_MAX: Bytes = Bytes(16 << 40);

/// What the next start of a VM uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Virtual processors.
    pub(crate) cpus: u16,
    /// Memory in MiB.
    pub(crate) memory: Mib,
    /// When it was created, in seconds since the epoch.
    pub(crate) created_s: u64,
    /// When copied data may cross between the host and its windows.
    #[serde(default)]
    pub(crate) clipboard: Modes,
}

/// One VM's folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    vms: PathBuf,
    name: VmName,
}

impl Folder {
    /// Returns the folder of VM `name` below `vms`; it need not exist.
    pub(crate) fn new(vms: PathBuf, name: VmName) -> Self {
        Self { vms, name }
    }

    /// Returns whether there is such a VM.
    pub(crate) fn exists(&self) -> bool {
        self.path().join(SETTINGS).is_file()
    }

    /// Creates the VM: a disk of `size` that begins as a copy of `template`, and its settings.
    ///
    /// # Errors
    /// When there is not enough space, the VM exists, or the file system refuses; nothing is left then.
    pub(crate) fn create(
        &self,
        template: &File,
        size: Bytes,
        settings: &Settings,
    ) -> Result<(), Fault> {
        check_size(size)?;
        let found = template
            .metadata()
            .map_err(|error| self.fault("create", &error))?;
        if found.len() > size.0 {
            let least = Bytes(found.len());
            return Err(size_fault(size).cause(format!("the guest image needs at least {least}")));
        }
        self.build(settings, |disk| {
            copy_sparse(template, disk)?;
            disk.set_len(size.0)
        })
    }

    /// Makes the folder under a temporary name, lets `fill` make the disk, and gives the folder its name.
    fn build(
        &self,
        settings: &Settings,
        fill: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), Fault> {
        let unfinished = self.begin()?;
        let filled = unfinished
            .disk()
            .and_then(|disk| fill(&disk).map_err(|error| self.fault("create", &error)));
        filled.and_then(|()| unfinished.finish(settings))
    }

    /// Makes the folder under a temporary name.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn begin(&self) -> Result<Unfinished, Fault> {
        let path = self.vms.join(format!("{UNFINISHED}new-{}", self.name));
        let made = remove_if_there(&path)
            .and_then(|()| {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.vms)
            })
            .and_then(|()| DirBuilder::new().mode(0o700).create(&path));
        made.map_err(|error| self.fault("create", &error))?;
        Ok(Unfinished {
            folder: self.clone(),
            path,
        })
    }

    /// Reads the settings.
    ///
    /// # Errors
    /// When the file is damaged; a missing one means that there is no such VM.
    pub(crate) fn settings(&self) -> Result<Settings, Fault> {
        let text = match std::fs::read_to_string(self.path().join(SETTINGS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(not_found(&self.name));
            }
            read => read.map_err(|error| self.fault("read", &error))?,
        };
        toml::from_str(&text).map_err(|error| {
            let path = self.path().join(SETTINGS);
            let message = format!("cannot use {}", path.display());
            Fault::new(Kind::Invalid, "E-VM-SETTINGS", message).cause(error.message())
        })
    }

    /// Replaces the settings.
    ///
    /// # Errors
    /// When the file system refuses; the old ones stay then.
    pub(crate) fn save(&self, settings: &Settings) -> Result<(), Fault> {
        let fault = |error: &io::Error| self.fault("change", error);
        let path = self.path().join(SETTINGS);
        let fresh = path.with_extension("new");
        write_settings(&fresh, settings).map_err(|error| fault(&error))?;
        std::fs::rename(&fresh, &path).map_err(|error| fault(&error))
    }

    /// Opens the disk for reading and writing.
    ///
    /// # Errors
    /// When it is gone or unreadable.
    pub(crate) fn disk(&self) -> Result<File, Fault> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path().join(DISK));
        opened.map_err(|error| self.fault("open", &error))
    }

    /// Returns the disk's size as the guest sees it and what it takes on the host.
    pub(crate) fn sizes(&self) -> (Bytes, Bytes) {
        std::fs::metadata(self.path().join(DISK)).map_or((Bytes(0), Bytes(0)), |found| {
            (Bytes(found.len()), Bytes(found.blocks() * 512))
        })
    }

    /// Takes the lock that says that an engine may use this disk. It belongs to the open file, so an engine that
    /// inherits it holds it until its last moment, even when concierge is killed.
    ///
    /// # Errors
    /// `WouldBlock` while another engine has it.
    pub(crate) fn lock(&self) -> io::Result<File> {
        let path = self.path().join(LOCK);
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    /// Grows the disk to `size`.
    ///
    /// # Errors
    /// When it would shrink, or the file system refuses.
    pub(crate) fn grow(&self, size: Bytes) -> Result<(), Fault> {
        check_size(size)?;
        let disk = self.disk()?;
        let now = disk
            .metadata()
            .map_err(|error| self.fault("grow", &error))?
            .len();
        if size.0 < now {
            return Err(size_fault(size)
                .cause(format!("it is {} now, and disks only grow", Bytes(now)))
                .hint("files removed in the guest already free their space on the host"));
        }
        disk.set_len(size.0)
            .map_err(|error| self.fault("grow", &error))
    }

    /// Removes the VM with everything in it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn destroy(&self) -> Result<(), Fault> {
        let gone = self.vms.join(format!("{UNFINISHED}gone-{}", self.name));
        remove_if_there(&gone)
            .and_then(|()| std::fs::rename(self.path(), &gone))
            .and_then(|()| std::fs::remove_dir_all(&gone))
            .map_err(|error| self.fault("destroy", &error))
    }

    /// Refuses when the host's file system has less than [`RESERVE`] and `needed` free.
    ///
    /// # Errors
    /// With the figures.
    pub(crate) fn check_space(&self, needed: Bytes) -> Result<(), Fault> {
        let there = self.vms.ancestors().find(|path| path.exists());
        let there = there.expect("the root folder exists");
        let found = statvfs(there).map_err(|error| self.fault("look at", &error.into()))?;
        let free = Bytes(found.f_bavail.saturating_mul(found.f_frsize));
        let wanted = Bytes(needed.0.saturating_add(RESERVE.0));
        if free < wanted {
            let message = format!("not enough space for {} on the host", self.name);
            return Err(Fault::new(Kind::Exhausted, "E-HOST-DISK-FULL", message)
                .cause(format!(
                    "{free} are free in {}, {wanted} are needed",
                    there.display()
                ))
                .hint("free some space, or destroy a VM that is not used: vmc destroy NAME"));
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.vms.join(self.name.as_str())
    }

    fn fault(&self, act: &str, error: &io::Error) -> Fault {
        let message = format!("cannot {act} the disk of {}", self.name);
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Fault::new(Kind::Exhausted, "E-HOST-DISK-FULL", message)
                    .hint("free some space on the host")
            }
            io::ErrorKind::PermissionDenied => Fault::new(Kind::Denied, "E-DISK-DENIED", message),
            _ => Fault::new(Kind::Internal, "E-DISK", message),
        }
        .because(error)
    }
}

/// A VM's folder under its temporary name; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Unfinished {
    folder: Folder,
    path: PathBuf,
}

impl Unfinished {
    /// Creates the empty disk.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn disk(&self) -> Result<File, Fault> {
        let mut options = OpenOptions::new();
        let made = options
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(self.path.join(DISK));
        made.map_err(|error| self.folder.fault("create", &error))
    }

    /// Writes the settings and gives the folder its name.
    ///
    /// # Errors
    /// When the VM exists by now, or the file system refuses; nothing is left then.
    pub(crate) fn finish(self, settings: &Settings) -> Result<(), Fault> {
        let fault = |error: &io::Error| self.folder.fault("create", error);
        write_settings(&self.path.join(SETTINGS), settings).map_err(|error| fault(&error))?;
        // A folder of that name without settings is what an interrupted removal left.
        if !self.folder.exists() {
            remove_if_there(&self.folder.path()).map_err(|error| fault(&error))?;
        }
        match renameat_with(
            CWD,
            &self.path,
            CWD,
            self.folder.path(),
            RenameFlags::NOREPLACE,
        ) {
            Err(Errno::EXIST) => Err(exists(&self.folder.name)),
            renamed => renamed.map_err(|error| fault(&error.into())),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = remove_if_there(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove unfinished folder");
        }
    }
}

/// Removes what earlier daemons left unfinished below `vms`, and returns the VMs that are there.
pub(crate) fn sweep(vms: &Path) -> Vec<VmName> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(vms).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(UNFINISHED) {
            if let Err(error) = remove_if_there(&entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove leftover");
            }
        } else if let Ok(name) = name.parse() {
            names.push(name);
        }
    }
    names.sort();
    names
}

/// Returns the fault of a request for a VM that does not exist.
pub(crate) fn not_found(name: &VmName) -> Fault {
    Fault::new(
        Kind::NotFound,
        "E-VM-NOTFOUND",
        format!("there is no VM {name}"),
    )
    .hint(format!("create it: vmc create {name}"))
}

/// Returns the fault of making a VM that exists.
pub(crate) fn exists(name: &VmName) -> Fault {
    Fault::new(
        Kind::Exists,
        "E-VM-EXISTS",
        format!("there is a VM {name} already"),
    )
    .hint("choose another name, or destroy that one first")
}

/// Copies `source` into the empty `target`, sharing its blocks where the file system can, else leaving its holes
/// out.
pub(crate) fn copy_sparse(source: &File, target: &File) -> io::Result<()> {
    if ioctl_ficlone(target, source).is_ok() {
        return Ok(());
    }
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let (mut from, mut into) = (source, target);
    for extent in extents(source, length)? {
        from.seek(SeekFrom::Start(extent.start))?;
        into.seek(SeekFrom::Start(extent.start))?;
        let count = extent.end - extent.start;
        let copied = io::copy(&mut io::Read::take(&mut from, count), &mut into)?;
        if copied != count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Returns the ranges of `file` that hold data, in order.
pub(crate) fn extents(file: &File, length: u64) -> io::Result<Vec<std::ops::Range<u64>>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            start => start?,
        };
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start))?.min(length);
        found.push(start..end);
        at = end;
    }
    Ok(found)
}

/// Returns the seconds since the epoch.
pub(crate) fn now_s() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
        .as_secs()
}

fn write_settings(path: &Path, settings: &Settings) -> io::Result<()> {
    let text = toml::to_string(settings).expect("settings are plain values");
    std::fs::write(path, text)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn check_size(size: Bytes) -> Result<(), Fault> {
    if (SIZE_MIN..=SIZE_MAX).contains(&size) && size.0.is_multiple_of(4096) {
        return Ok(());
    }
    let rule = format!("it must be between {SIZE_MIN} and {SIZE_MAX} and a multiple of 4 KiB");
    Err(size_fault(size).cause(rule))
}

fn size_fault(size: Bytes) -> Fault {
    let message = format!("a disk cannot have {size} ({} bytes)", size.0);
    Fault::new(Kind::Invalid, "E-DISK-SIZE", message)
}

#[cfg(test)]
mod tests;
