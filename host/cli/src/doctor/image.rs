//! The guest image: whether it is there and whole, and with `--deep`, whether its bytes are those of its manifest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use wire::Bytes;

use super::{Finding, Patient};
use crate::transfer;

/// What no VM starts without.
const NEEDED: [&str; 3] = ["vmlinux", "root.erofs", "data.btrfs"];
const BUILD: &str = "cargo xtask image";
/// A manifest is a few hundred KiB; the reader must end.
const MANIFEST_MAX: u64 = 16 << 20;

/// The part of the manifest that matters here.
#[derive(Debug, Deserialize)]
struct Manifest {
    outputs: BTreeMap<String, Output>,
}

#[derive(Debug, Deserialize)]
struct Output {
    sha256: String,
    bytes: u64,
}

/// Returns what was found of the image.
pub(super) fn check(patient: &Patient<'_>, deep: bool) -> Vec<Finding> {
    let folder = patient.places.image(patient.config.image.as_deref());
    let fail = |found: String| vec![Finding::fail("image", found, BUILD)];
    let manifest = match read(&folder.join("manifest.json")) {
        Ok(manifest) => manifest,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return fail(format!("there is no guest image in {}", folder.display()));
        }
        Err(error) => {
            return fail(format!(
                "the manifest in {} cannot be read: {error}",
                folder.display()
            ));
        }
    };
    for name in NEEDED {
        if !manifest.outputs.contains_key(name) {
            return fail(format!(
                "the manifest in {} does not name {name}",
                folder.display()
            ));
        }
    }
    let mut total = 0_u64;
    for (name, output) in &manifest.outputs {
        match std::fs::metadata(folder.join(name)) {
            Err(error) => return fail(format!("{name} cannot be read: {error}")),
            Ok(found) if found.len() != output.bytes => {
                return fail(format!(
                    "{name} has {} bytes, the manifest says {}",
                    found.len(),
                    output.bytes
                ));
            }
            Ok(_) => total = total.saturating_add(output.bytes),
        }
    }
    let whole = Finding::ok(
        "image",
        format!(
            "{} ({} files, {})",
            folder.display(),
            manifest.outputs.len(),
            Bytes(total)
        ),
    );
    let mut findings = vec![whole];
    if deep {
        findings.push(hashes(&folder, &manifest));
    }
    findings
}

fn hashes(folder: &Path, manifest: &Manifest) -> Finding {
    let differ =
        manifest
            .outputs
            .iter()
            .find_map(|(name, output)| match sha256(&folder.join(name)) {
                Ok(found) if found == output.sha256 => None,
                Ok(_) => Some(format!("{name} differs from the manifest")),
                Err(error) => Some(format!("{name} cannot be read: {error}")),
            });
    match differ {
        None => Finding::ok("image-hashes", "all files are as the manifest says"),
        Some(found) => Finding::fail("image-hashes", found, BUILD),
    }
}

fn read(path: &Path) -> io::Result<Manifest> {
    let file = File::open(path)?;
    serde_json::from_reader(file.take(MANIFEST_MAX)).map_err(io::Error::other)
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    transfer::chunks(File::open(path)?, |data| {
        hash.update(&data);
        true
    })?;
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
