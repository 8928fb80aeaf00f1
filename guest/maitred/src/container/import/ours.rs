//! Our own exports back: the manifest, the files, and the sums of all of them, which must agree.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};
use wire::{Fault, Kind};

use super::super::manifest::{CHECKSUMS, MANIFEST, Manifest, sum_line};
use super::Imported;
use super::compression::plain;
use super::tree::Tree;
use super::unpack::{Take, member, spoiled};

/// Our manifests have some hundred bytes, an environment at most half a megabyte.
const MANIFEST_MAX: u64 = 1 << 20;

/// Fills `rootfs` from an export.
pub(in super::super) fn bring(stream: impl Read, rootfs: &Path) -> Result<Imported, Fault> {
    let mut archive = Archive::new(plain(stream).map_err(spoiled)?);
    let mut tree = Tree::open(rootfs).map_err(spoiled)?;
    let mut entries = archive.entries().map_err(spoiled)?;
    let manifest = match entries.next() {
        Some(first) => manifest(first.map_err(spoiled)?)?,
        None => return Err(refused("it is empty")),
    };
    let mut sums = Sha256::new();
    let mut verified = false;
    for entry in entries {
        let entry = entry.map_err(spoiled)?;
        if verified {
            return Err(refused("something follows its checksums"));
        }
        if *entry.path_bytes() == *CHECKSUMS.as_bytes() {
            verified = same(entry, sums.clone()).map_err(spoiled)?;
            if !verified {
                return Err(refused("its files are not what its checksums say"));
            }
        } else {
            file(&mut tree, entry, &mut sums).map_err(spoiled)?;
        }
    }
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(spoiled)?;
    if verified {
        Ok(manifest.imported())
    } else {
        Err(refused("its end is missing"))
    }
}

fn manifest(entry: Entry<'_, impl Read>) -> Result<Manifest, Fault> {
    if *entry.path_bytes() != *MANIFEST.as_bytes() || entry.size() > MANIFEST_MAX {
        return Err(refused("it does not begin with a manifest"));
    }
    let text = io::read_to_string(entry).map_err(spoiled)?;
    Manifest::parse(&text)
}

/// Writes one member, adding its content's sum to the list that the export must end with.
fn file(tree: &mut Tree, mut entry: Entry<'_, impl Read>, sums: &mut Sha256) -> io::Result<()> {
    let path = entry.path_bytes().into_owned();
    if entry.header().entry_type() != EntryType::Regular {
        return member(tree, entry, &Take::Below("rootfs"));
    }
    // The list names files by their path; the name in the archive is the one that counts.
    let mut hash = Sha256::new();
    super::unpack::hashed(tree, &mut entry, &Take::Below("rootfs"), &mut hash)?;
    sums.update(sum_line(hash, Path::new(OsStr::from_bytes(&path))));
    Ok(())
}

/// Compares the list of sums in `entry` with ours, without holding either.
fn same(mut entry: Entry<'_, impl Read>, ours: Sha256) -> io::Result<bool> {
    let mut theirs = Sha256::new();
    let mut chunk = [0; 8192];
    loop {
        match entry.read(&mut chunk)? {
            0 => return Ok(theirs.finalize() == ours.finalize()),
            read => theirs.update(&chunk[..read]),
        }
    }
}

fn refused(cause: &str) -> Fault {
    Fault::new(Kind::Invalid, "E-IMPORT", "the export cannot be read").cause(cause)
}
