//! Reads a VM from what `export` wrote, on the host. The file may be truncated, corrupted or hostile: every
//! number is checked before it is used, every piece against its hash, and the VM gets its name last.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};
use thiserror::Error;
use wire::{Bytes, Fault, Kind};

use super::export::{CHECKSUMS, Checksums, FORMAT, MANIFEST, Manifest, PIECE_MAX, PIECES, hex};
use super::{Folder, SIZE_MAX, SIZE_MIN, Settings};

/// Longest `manifest.json` or `checksums.json`: the largest disk in the smallest useful pieces has about a
/// million of them, at 100 bytes each.
const TEXT_MAX: u64 = 128 << 20;

/// Most a reader allocates for one zstd window, as a power of two (128 MiB): our writer's is 512 KiB.
const WINDOW_LOG_MAX: u32 = 27;

/// Copied at once.
const BLOCK: usize = 1 << 20;

/// What is wrong with the file.
#[derive(Debug, Error)]
pub(crate) enum ImportError {
    /// It ends early, is not zstd, or its zstd checksum is wrong.
    #[error("the file is truncated or corrupted")]
    Read(#[source] io::Error),
    /// The first or last entry is not the JSON that it should be.
    #[error("{0} in the file is damaged")]
    Json(&'static str, #[source] serde_json::Error),
    /// Written by a later version.
    #[error("the file has format {0}, this version reads {FORMAT}")]
    Format(u32),
    /// An entry that does not belong there.
    #[error("the file has an unexpected entry {0:?}")]
    Entry(String),
    /// A disk size that no disk can have.
    #[error("the file says that the disk has {0}")]
    Size(Bytes),
    /// The bytes are not the ones that were written.
    #[error("checksum of {0} is wrong")]
    Checksum(String),
    /// Entries are missing.
    #[error("the file is incomplete: {0}")]
    Incomplete(&'static str),
    /// The disk cannot be written.
    #[error("cannot write the disk")]
    Write(#[source] io::Error),
    /// The folder cannot be made.
    #[error("{0}")]
    Folder(#[source] Fault),
}

impl ImportError {
    /// Returns the fault that the user sees.
    pub(crate) fn fault(self, folder: &Folder) -> Fault {
        let message = format!("cannot import {}", folder.name);
        match &self {
            Self::Folder(fault) => fault.clone().while_doing(message),
            Self::Write(error) => folder.fault("write", error).while_doing(message),
            _ => Fault::new(Kind::Invalid, "E-IMPORT-DAMAGED", message).because(&self),
        }
    }
}

/// Builds the VM of `folder` from `source`; `progress` hears how many bytes of data are done, of how many.
///
/// # Errors
/// When the file is not whole, the VM exists or there is no space; nothing is left then.
pub(crate) fn read(
    folder: &Folder,
    source: impl Read,
    mut progress: impl FnMut(u64, u64),
) -> Result<(), ImportError> {
    let mut decoder = zstd::Decoder::new(source).map_err(ImportError::Read)?;
    decoder
        .window_log_max(WINDOW_LOG_MAX)
        .map_err(ImportError::Read)?;
    let mut archive = tar::Archive::new(decoder);
    let mut entries = archive.entries().map_err(ImportError::Read)?;
    let first = entries
        .next()
        .ok_or(ImportError::Incomplete("it is empty"))?;
    let manifest = manifest(first.map_err(ImportError::Read)?)?;
    folder
        .check_space(manifest.data_bytes)
        .map_err(ImportError::Folder)?;
    let unfinished = folder.begin().map_err(ImportError::Folder)?;
    let disk = unfinished.disk().map_err(ImportError::Folder)?;
    disk.set_len(manifest.disk_bytes.0)
        .map_err(ImportError::Write)?;

    let mut state = Pieces {
        disk: &disk,
        manifest: &manifest,
        end: 0,
        done: 0,
        hashes: BTreeMap::new(),
    };
    let mut listed = None;
    for entry in &mut entries {
        let entry = entry.map_err(ImportError::Read)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if listed.is_some() {
            return Err(ImportError::Entry(name));
        }
        if name == CHECKSUMS {
            let text = text(entry)?;
            let parsed: Checksums = serde_json::from_slice(&text)
                .map_err(|error| ImportError::Json(CHECKSUMS, error))?;
            listed = Some(parsed);
        } else {
            state.take(name, entry)?;
            progress(state.done, manifest.data_bytes.0);
        }
    }
    let listed = listed.ok_or(ImportError::Incomplete("its checksums are missing"))?;
    state.check(&listed)?;
    // The zstd frame's own end and checksum come after the tar's.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(ImportError::Read)?;
    let settings = Settings {
        created_s: super::now_s(),
        ..manifest.settings
    };
    unfinished.finish(&settings).map_err(ImportError::Folder)
}

fn manifest(entry: tar::Entry<'_, impl Read>) -> Result<Manifest, ImportError> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    if name != MANIFEST {
        return Err(ImportError::Entry(name));
    }
    let text = text(entry)?;
    // Another format may have other fields, so its number is read first.
    let json = |error| ImportError::Json(MANIFEST, error);
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(json)?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => {
            return Err(ImportError::Format(
                u32::try_from(format).unwrap_or(u32::MAX),
            ));
        }
        None => return Err(ImportError::Incomplete("its manifest names no format")),
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(json)?;
    if !(SIZE_MIN..=SIZE_MAX).contains(&manifest.disk_bytes)
        || manifest.data_bytes > manifest.disk_bytes
    {
        return Err(ImportError::Size(manifest.disk_bytes));
    }
    Ok(manifest)
}

fn text(entry: tar::Entry<'_, impl Read>) -> Result<Vec<u8>, ImportError> {
    let mut text = Vec::new();
    entry
        .take(TEXT_MAX)
        .read_to_end(&mut text)
        .map_err(ImportError::Read)?;
    Ok(text)
}

/// The pieces taken so far.
struct Pieces<'a> {
    disk: &'a File,
    manifest: &'a Manifest,
    end: u64,
    done: u64,
    hashes: BTreeMap<String, String>,
}

impl Pieces<'_> {
    /// Writes one piece to its place.
    fn take(
        &mut self,
        name: String,
        mut entry: tar::Entry<'_, impl Read>,
    ) -> Result<(), ImportError> {
        let size = entry.size();
        let offset = name
            .strip_prefix(PIECES)
            .filter(|digits| digits.len() == 16)
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .filter(|offset| *offset >= self.end && (1..=PIECE_MAX).contains(&size));
        let end = offset.and_then(|offset| offset.checked_add(size));
        let fits = end.filter(|end| *end <= self.manifest.disk_bytes.0);
        let (Some(offset), Some(end)) = (offset, fits) else {
            return Err(ImportError::Entry(name));
        };
        let mut disk = self.disk;
        disk.seek(SeekFrom::Start(offset))
            .map_err(ImportError::Write)?;
        let mut hash = Sha256::new();
        let mut block = vec![0; BLOCK];
        let mut left = size;
        while left > 0 {
            let count = entry.read(&mut block).map_err(ImportError::Read)?;
            if count == 0 {
                return Err(ImportError::Incomplete("a piece ends early"));
            }
            hash.update(&block[..count]);
            disk.write_all(&block[..count])
                .map_err(ImportError::Write)?;
            left = left.saturating_sub(count as u64);
        }
        self.end = end;
        self.done += size;
        self.hashes.insert(name, hex(&hash.finalize()));
        Ok(())
    }

    /// Compares with what the writer hashed.
    fn check(&self, listed: &Checksums) -> Result<(), ImportError> {
        for (name, hash) in &listed.sha256 {
            match self.hashes.get(name) {
                Some(found) if found == hash => {}
                Some(_) => return Err(ImportError::Checksum(name.clone())),
                None => return Err(ImportError::Incomplete("a piece is missing")),
            }
        }
        if listed.sha256.len() != self.hashes.len() || self.done != self.manifest.data_bytes.0 {
            return Err(ImportError::Incomplete(
                "its checksums do not name every piece",
            ));
        }
        Ok(())
    }
}
