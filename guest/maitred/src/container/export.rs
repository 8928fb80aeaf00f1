//! Exports a container as one file that is streamed while it is made (see [`super::manifest`] for its form).

use std::ffi::CStr;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tonic::Status;
use wire::{ContainerName, Fault};

use super::create::blocking;
use super::manifest::{CHECKSUMS, MANIFEST, Manifest, member_path, sum_line};
use super::scratch::Scratch;
use super::{Containers, subvolume};
use crate::fault::OrFault;

/// Bytes collected before they are sent: well below the megabyte that a chunk may have.
const CHUNK: usize = 256 << 10;

/// zstd's own default: three times the speed of level 6 for a tenth more bytes.
const LEVEL: i32 = 3;

/// Longest list of attributes, and longest value (limits.h: XATTR_LIST_MAX, XATTR_SIZE_MAX).
const XATTR_MAX: usize = 64 << 10;

/// Files by device and number, for those with several names.
type Seen = std::collections::HashMap<(u64, u64), PathBuf>;

impl Containers {
    /// Streams the container as it is now, running or not, without its snapshots.
    pub(super) async fn export(&self, name: &ContainerName, sink: Sink) -> Result<(), Fault> {
        let (turn, home) = self.existing(name).await?;
        let message = format!("cannot export container {name}");
        let scratch = Scratch::new(&self.folder, "export")
            .or_fault("E-CONTAINER-EXPORT", || message.clone())?;
        let manifest = Manifest::of(name, &home.config()?);
        let frozen = scratch.path().join("rootfs");
        blocking(move || {
            let write = || -> io::Result<()> {
                subvolume::snapshot(&home.rootfs(), &frozen)?;
                subvolume::set_read_only(&frozen, true)?;
                // The container is free again; what is exported does not change any more.
                drop(turn);
                let manifest = serde_json::to_vec_pretty(&manifest)?;
                let sums = scratch.path().join("checksums");
                write(&frozen, &manifest, &sums, sink)
            };
            write().or_fault("E-CONTAINER-EXPORT", || message)
        })
        .await
    }
}

/// Writes the whole export of the tree at `top`; `sums` is a file of its own meanwhile.
fn write(top: &Path, manifest: &[u8], sums: &Path, sink: Sink) -> io::Result<()> {
    let mut zstd = zstd::stream::write::Encoder::new(sink, LEVEL)?;
    zstd.include_checksum(true)?;
    let list = io::BufWriter::new(File::create_new(sums)?);
    let mut export = Export {
        tar: Builder::new(zstd),
        list,
        seen: Seen::new(),
    };
    export.plain(MANIFEST, manifest.len() as u64, manifest)?;
    export.directory(top, Path::new(""))?;
    export.list.flush()?;
    let list = File::open(sums)?;
    export.plain(CHECKSUMS, list.metadata()?.len(), list)?;
    let mut sink = export.tar.into_inner()?.finish()?;
    sink.flush()
}

struct Export {
    tar: Builder<zstd::stream::write::Encoder<'static, Sink>>,
    list: io::BufWriter<File>,
    seen: Seen,
}

impl Export {
    /// Writes a member of ours.
    fn plain(&mut self, name: &str, length: u64, content: impl Read) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(length);
        header.set_mode(0o644);
        self.tar.append_data(&mut header, name, content)
    }

    /// Writes directory `path` below `top` and everything in it. The tree is a read-only snapshot of ours, so
    /// nothing can be exchanged for a link while it is read.
    fn directory(&mut self, top: &Path, path: &Path) -> io::Result<()> {
        let full = top.join(path);
        let meta = std::fs::symlink_metadata(&full)?;
        self.attributes(&full)?;
        self.tar.append_data(
            &mut header(&meta, EntryType::Directory),
            member_path(path),
            io::empty(),
        )?;
        let mut names: Vec<_> = std::fs::read_dir(&full)?
            .map(|e| Ok(e?.file_name()))
            .collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            let path = path.join(name);
            let full = top.join(&path);
            let meta = std::fs::symlink_metadata(&full)?;
            if meta.is_dir() {
                self.directory(top, &path)?;
            } else {
                self.leaf(&full, &path, &meta)?;
            }
        }
        Ok(())
    }

    fn leaf(&mut self, full: &Path, path: &Path, meta: &Metadata) -> io::Result<()> {
        let member = member_path(path);
        if meta.nlink() > 1
            && let Some(first) = self.seen.get(&(meta.dev(), meta.ino()))
        {
            let mut header = header(meta, EntryType::Link);
            return self.tar.append_link(&mut header, member, first);
        }
        let kind = meta.file_type();
        if kind.is_symlink() {
            let target = std::fs::read_link(full)?;
            return self
                .tar
                .append_link(&mut header(meta, EntryType::Symlink), member, target);
        }
        if kind.is_fifo() || is_whiteout(meta) {
            let kind = if kind.is_fifo() {
                EntryType::Fifo
            } else {
                EntryType::Char
            };
            return self
                .tar
                .append_data(&mut header(meta, kind), member, io::empty());
        }
        if !kind.is_file() {
            return Ok(());
        }
        if meta.nlink() > 1 {
            self.seen.insert((meta.dev(), meta.ino()), member.clone());
        }
        self.attributes(full)?;
        let mut header = header(meta, EntryType::Regular);
        header.set_size(meta.len());
        let mut content = Hashing {
            file: File::open(full)?,
            hash: Sha256::new(),
        };
        self.tar.append_data(&mut header, &member, &mut content)?;
        self.list.write_all(&sum_line(content.hash, &member))
    }

    /// Writes the extended attributes of the member that follows.
    fn attributes(&mut self, full: &Path) -> io::Result<()> {
        let mut list = vec![0; XATTR_MAX];
        let length = llistxattr(full, &mut list[..])?;
        let mut found = Vec::new();
        for name in list[..length].split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            let mut value = vec![0; XATTR_MAX];
            let length = lgetxattr(full, name, &mut value[..])?;
            value.truncate(length);
            if let Ok(name) = name.to_str() {
                found.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        self.tar
            .append_pax_extensions(found.iter().map(|(name, value)| (&**name, &**value)))
    }
}

/// overlayfs marks removed files by character devices 0:0; containers inside the container have them.
fn is_whiteout(meta: &Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn header(meta: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(meta.mode() & 0o7777);
    header.set_uid(u64::from(meta.uid()));
    header.set_gid(u64::from(meta.gid()));
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or_default());
    if kind == EntryType::Char {
        // Both fields exist in this header's form.
        let _ = header
            .set_device_major(0)
            .and_then(|()| header.set_device_minor(0));
    }
    header
}

struct Hashing {
    file: File,
    hash: Sha256,
}

impl Read for Hashing {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(out)?;
        self.hash.update(&out[..read]);
        Ok(read)
    }
}

/// Sends what is written to the host, in chunks; writing fails once the host has gone.
#[derive(Debug)]
pub(super) struct Sink {
    out: mpsc::Sender<Result<Vec<u8>, Status>>,
    chunk: Vec<u8>,
}

impl Sink {
    pub(super) fn new(out: mpsc::Sender<Result<Vec<u8>, Status>>) -> Self {
        Self {
            out,
            chunk: Vec::with_capacity(CHUNK),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend(&bytes[..taken]);
        if self.chunk.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.out
            .blocking_send(Ok(chunk))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests;
