//! The manifest beside an installed image: every input and output with its hash, so that one can say
//! what a machine runs and whether two images are the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::apt::Package;
use super::key::sha256_of;

/// The manifest's name in the image's folder.
pub(super) const NAME: &str = "manifest.json";

/// The form written here; readers refuse others.
const FORMAT: u32 = 1;

/// What an image was made of and what came out.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    /// Hash over every input; equal keys are equal images.
    pub(super) key: String,
    suite: String,
    inputs: Inputs,
    /// The files of the image's folder by name.
    outputs: BTreeMap<String, Output>,
}

/// What went in.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inputs {
    /// Compiler and linker, as they call themselves.
    pub(super) toolchain: Vec<String>,
    /// SHA-256 of the recipe's files and of the programs built from this repository, by path.
    pub(super) files: BTreeMap<String, String>,
    /// Packages by the part of the image that they went into.
    pub(super) packages: BTreeMap<String, Vec<Package>>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Output {
    sha256: String,
    bytes: u64,
}

impl Manifest {
    /// Describes the `outputs` in `folder`.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn of(folder: &Path, outputs: &[&str], key: String, inputs: Inputs) -> Result<Self> {
        let describe = |name: &&str| -> Result<(String, Output)> {
            let path = folder.join(name);
            let bytes = fs::metadata(&path)
                .with_context(|| format!("no {}", path.display()))?
                .len();
            Ok((
                (*name).to_owned(),
                Output {
                    sha256: sha256_of(&path)?,
                    bytes,
                },
            ))
        };
        Ok(Self {
            format: FORMAT,
            key,
            suite: super::sources::SUITE.to_owned(),
            inputs,
            outputs: outputs.iter().map(describe).collect::<Result<_>>()?,
        })
    }

    /// Writes the manifest into `folder`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let text =
            serde_json::to_string_pretty(self).context("cannot write the manifest as JSON")?;
        fs::write(folder.join(NAME), text + "\n").context("cannot write the manifest")
    }

    /// Reads the manifest in `folder`; nothing when there is none of this form, or an output that it
    /// names is gone or has another size.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(&fs::read(folder.join(NAME)).ok()?).ok()?;
        let whole = manifest.outputs.iter().all(|(name, output)| {
            fs::metadata(folder.join(name)).is_ok_and(|data| data.len() == output.bytes)
        });
        (manifest.format == FORMAT && whole).then_some(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> (tempfile::TempDir, Manifest) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("vmlinux"), "abc").unwrap();
        let manifest = Manifest::of(
            folder.path(),
            &["vmlinux"],
            "k".to_owned(),
            Inputs::default(),
        )
        .unwrap();
        manifest.write(folder.path()).unwrap();
        (folder, manifest)
    }

    #[test]
    fn manifest_is_read_back_as_written() {
        let (folder, manifest) = written();
        assert_eq!(Manifest::read(folder.path()), Some(manifest));
    }

    #[test]
    fn cut_output_or_broken_manifest_does_not_count_as_an_image() {
        let (folder, _) = written();
        fs::write(folder.path().join("vmlinux"), "ab").unwrap();
        assert_eq!(Manifest::read(folder.path()), None);
        let (folder, _) = written();
        fs::write(folder.path().join(NAME), "{").unwrap();
        assert_eq!(Manifest::read(folder.path()), None);
    }

    #[test]
    fn missing_output_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            Manifest::of(
                folder.path(),
                &["vmlinux"],
                String::new(),
                Inputs::default()
            )
            .is_err()
        );
    }
}
