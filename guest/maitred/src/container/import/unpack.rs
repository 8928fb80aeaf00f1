//! Unpacks one tarball beneath one directory.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType, Header};
use wire::{Fault, Kind as FaultKind};

use super::super::rootfs::Owner;
use super::compression::plain;
use super::tree::{self, Facts, Kind, Tree};
use crate::fault::OrFault;

/// Attributes travel in PAX records by this name (tar(5) of libarchive, GNU tar's `--xattrs`).
const XATTR: &[u8] = b"SCHILY.xattr.";

/// A layer says by names that begin like this what is not there any more (OCI image layer specification).
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Which members are written, and under what name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Take {
    All,
    /// What lies below this directory, as if it were the top.
    Below(&'static str),
    /// All, on top of what is there, with the whiteouts done.
    Layer,
}

/// Unpacks the (compressed) tarball `stream` into `rootfs`.
pub(super) fn archive(stream: impl Read, rootfs: &Path, take: &Take) -> Result<(), Fault> {
    let mut tree = Tree::open(rootfs).map_err(spoiled)?;
    let stream = plain(stream).map_err(spoiled)?;
    let mut archive = Archive::new(stream);
    for entry in archive.entries().map_err(spoiled)? {
        member(&mut tree, entry.map_err(spoiled)?, take).map_err(spoiled)?;
    }
    // What follows the end mark is padding; a compressed stream says only at its own end that it is whole.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(spoiled)?;
    if tree.members() == 0 && *take != Take::Layer {
        let message = "the archive holds no root file system";
        return Err(Fault::new(FaultKind::Invalid, "E-IMPORT", message));
    }
    Ok(())
}

/// Writes one member.
pub(super) fn member(
    tree: &mut Tree,
    mut entry: Entry<'_, impl Read>,
    take: &Take,
) -> io::Result<()> {
    let path = PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned()));
    let Some(path) = renamed(&path, take)? else {
        return Ok(());
    };
    if *take == Take::Layer && whiteout(tree, &path)? {
        return Ok(());
    }
    let Some(mut facts) = facts(&mut entry)? else {
        return Ok(());
    };
    if let Kind::Hardlink(target) = &facts.kind {
        // A link to what is not taken is taken as nothing.
        let Some(target) = renamed(target, take)? else {
            return Ok(());
        };
        facts.kind = Kind::Hardlink(target);
    }
    tree.put(&path, &facts, entry)
}

/// Writes one member as [`member`] does, its content passing through `hash`.
pub(super) fn hashed(
    tree: &mut Tree,
    entry: &mut Entry<'_, impl Read>,
    take: &Take,
    hash: &mut Sha256,
) -> io::Result<()> {
    let path = PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned()));
    let (Some(path), Some(facts)) = (renamed(&path, take)?, facts(entry)?) else {
        return Ok(());
    };
    tree.put(
        &path,
        &facts,
        Hashing {
            content: entry,
            hash,
        },
    )
}

struct Hashing<'a, R> {
    content: R,
    hash: &'a mut Sha256,
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(out)?;
        self.hash.update(&out[..read]);
        Ok(read)
    }
}

/// Returns the member's name in the tree, `None` when it is not taken.
fn renamed(path: &Path, take: &Take) -> io::Result<Option<PathBuf>> {
    let path = tree::inside(path)?;
    Ok(match take {
        Take::All | Take::Layer => Some(path),
        Take::Below(top) => path.strip_prefix(top).ok().map(Path::to_owned),
    })
}

/// Does what a whiteout says; `false` when the member is none.
fn whiteout(tree: &mut Tree, path: &Path) -> io::Result<bool> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(false);
    };
    let above = path.parent().unwrap_or(Path::new(""));
    if name == OPAQUE {
        tree.empty(above)?;
    } else if let Some(gone) = name.strip_prefix(WHITEOUT) {
        tree.remove(&above.join(gone))?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Reads what kind of member it is; `None` for kinds that a container must not have (device nodes: its `/dev`
/// comes from elsewhere, and these would reach the VM's disks) or that mean nothing in a file system.
fn facts(entry: &mut Entry<'_, impl Read>) -> io::Result<Option<Facts>> {
    let target = |entry: &Entry<'_, _>| {
        let target = entry.link_name_bytes().unwrap_or_default().into_owned();
        PathBuf::from(OsString::from_vec(target))
    };
    let kind = match entry.header().entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Symlink => Kind::Symlink(target(entry)),
        EntryType::Link => Kind::Hardlink(target(entry)),
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char if is_whiteout(entry.header())? => Kind::Whiteout,
        _ => return Ok(None),
    };
    let header = entry.header();
    let number = |n: u64| u32::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
    let owner = Owner {
        uid: number(header.uid()?)?,
        gid: number(header.gid()?)?,
        mode: header.mode()? & 0o7777,
    };
    let modified_s = header.mtime()?;
    let length = entry.size();
    let mut attributes = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if let Some(name) = extension.key_bytes().strip_prefix(XATTR) {
                let name = OsString::from_vec(name.to_vec());
                attributes.push((name, extension.value_bytes().to_vec()));
            }
        }
    }
    Ok(Some(Facts {
        kind,
        owner,
        length,
        modified_s,
        attributes,
    }))
}

/// Character device 0:0 is no device: overlayfs marks removed files by it, inside a container too.
fn is_whiteout(header: &Header) -> io::Result<bool> {
    Ok(header.device_major()? == Some(0) && header.device_minor()? == Some(0))
}

/// Turns what went wrong while unpacking into a fault: the stream's own, a full disk, or a bad archive.
pub(super) fn spoiled(error: io::Error) -> Fault {
    if let Some(fault) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Fault>())
    {
        return fault.clone();
    }
    let message = "the archive cannot be unpacked";
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Err::<(), _>(error)
            .or_fault("E-IMPORT", || message.to_owned())
            .expect_err("it is one"),
        _ => Fault::new(FaultKind::Invalid, "E-IMPORT", message).because(&error),
    }
}

#[cfg(test)]
mod tests;
