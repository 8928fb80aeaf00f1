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
    /// Hash over every input; equal builds are equal images.
    pub(super) build: String,
    suite: String,
    /// Images that a guest may fetch when it needs them, by the name it asks for.
    extras: BTreeMap<String, Extra>,
    pub(super) inputs: Inputs,
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
struct Extra {
    file: String,
    sha256: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Output {
    sha256: String,
    bytes: u64,
}

impl Manifest {
    /// Describes the `outputs` in `folder`; `extras` are names of guests' requests and their outputs.
    ///
    /// # Errors
    /// When an output cannot be read.
    pub(super) fn of(folder: &Path, outputs: &[&str], extras: &[(&str, &str)]) -> Result<Self> {
        let describe = |name: &&str| -> Result<(String, Output)> {
            let path = folder.join(name);
            let context = || format!("cannot look at {}", path.display());
            let bytes = fs::metadata(&path).with_context(context)?.len();
            Ok((
                (*name).to_owned(),
                Output {
                    sha256: sha256_of(&path)?,
                    bytes,
                },
            ))
        };
        let outputs = outputs
            .iter()
            .map(describe)
            .collect::<Result<BTreeMap<_, _>>>()?;
        let extra = |(name, file): &(&str, &str)| -> Result<(String, Extra)> {
            let output = outputs
                .get(*file)
                .with_context(|| format!("{file} is no output"))?;
            let extra = Extra {
                file: (*file).to_owned(),
                sha256: output.sha256.clone(),
            };
            Ok(((*name).to_owned(), extra))
        };
        Ok(Self {
            format: FORMAT,
            build: String::new(),
            suite: super::sources::SUITE.to_owned(),
            extras: extras.iter().map(extra).collect::<Result<_>>()?,
            inputs: Inputs::default(),
            outputs,
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
        let manifest = Manifest::of(folder.path(), &["vmlinux"], &[("more", "vmlinux")]).unwrap();
        manifest.write(folder.path()).unwrap();
        (folder, manifest)
    }

    #[test]
    fn extras_name_their_file_and_hash() {
        let (folder, _) = written();
        let text = fs::read(folder.path().join(NAME)).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["extras"]["more"]["file"], "vmlinux");
        assert_eq!(
            json["extras"]["more"]["sha256"],
            json["outputs"]["vmlinux"]["sha256"]
        );
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
        assert!(Manifest::of(folder.path(), &["vmlinux"], &[]).is_err());
    }
}
