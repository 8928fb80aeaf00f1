//! Writes a VM to one self-describing stream, on the host: zstd over a tar of `manifest.json`, one entry
//! `disk/<offset>` for each piece of data (holes are left out), and `checksums.json` at the end, so that it can
//! be made without a second pass.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wire::{Bytes, VmName};

use super::{Settings, extents};

/// The format that this build writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// Largest piece: a reader checks a piece before it goes on, and keeps none in memory.
pub(crate) const PIECE_MAX: u64 = 64 << 20;

/// The first entry.
pub(crate) const MANIFEST: &str = "manifest.json";

/// The last entry.
pub(crate) const CHECKSUMS: &str = "checksums.json";

/// Pieces are `disk/<offset>`, the offset in bytes as 16 hexadecimal digits, ascending.
pub(crate) const PIECES: &str = "disk/";

/// zstd's level: 1 keeps up with a disk; higher ones save a few per cent on a compressed btrfs.
const LEVEL: i32 = 1;

/// What an exported file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// [`FORMAT`] of the writer.
    pub(crate) format: u32,
    /// The VM's name when it was exported.
    pub(crate) vm: VmName,
    /// The disk's size in bytes.
    pub(crate) disk_bytes: Bytes,
    /// Bytes of data in all pieces.
    pub(crate) data_bytes: Bytes,
    /// The VM's settings.
    pub(crate) settings: Settings,
    /// The guest image that last ran it.
    pub(crate) image_build: String,
}

/// The hashes of all pieces, by entry name.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checksums {
    /// SHA-256 in hexadecimal.
    pub(crate) sha256: BTreeMap<String, String>,
}

/// Writes `disk` into `sink`.
///
/// # Errors
/// When the disk cannot be read or the sink takes no more.
pub(crate) fn write(
    disk: &File,
    vm: VmName,
    settings: Settings,
    image_build: String,
    sink: impl Write,
) -> io::Result<()> {
    let length = disk.metadata()?.len();
    let pieces = pieces(disk, length)?;
    let manifest = Manifest {
        format: FORMAT,
        vm,
        disk_bytes: Bytes(length),
        data_bytes: Bytes(pieces.iter().map(|piece| piece.end - piece.start).sum()),
        settings,
        image_build,
    };
    let mut encoder = zstd::Encoder::new(sink, LEVEL)?;
    encoder.include_checksum(true)?;
    let mut archive = tar::Builder::new(encoder);
    append(&mut archive, MANIFEST, &to_json(&manifest)?)?;
    let mut checksums = Checksums::default();
    let mut source = disk;
    for piece in pieces {
        let name = format!("{PIECES}{:016x}", piece.start);
        source.seek(SeekFrom::Start(piece.start))?;
        let size = piece.end - piece.start;
        let mut reader = Hashing {
            source: source.take(size),
            hash: Sha256::new(),
        };
        archive.append_data(&mut header(size), &name, &mut reader)?;
        checksums.sha256.insert(name, hex(&reader.hash.finalize()));
    }
    append(&mut archive, CHECKSUMS, &to_json(&checksums)?)?;
    archive.into_inner()?.finish()?.flush()
}

/// Returns a hash as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pieces(disk: &File, length: u64) -> io::Result<Vec<std::ops::Range<u64>>> {
    let mut pieces = Vec::new();
    for extent in extents(disk, length)? {
        let mut start = extent.start;
        while start < extent.end {
            let end = extent.end.min(start + PIECE_MAX);
            pieces.push(start..end);
            start = end;
        }
    }
    Ok(pieces)
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    archive.append_data(&mut header(bytes.len() as u64), name, bytes)
}

fn to_json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(io::Error::other)
}

/// Hashes what is read through it.
struct Hashing<R> {
    source: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
