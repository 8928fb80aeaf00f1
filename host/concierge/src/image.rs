//! The guest image folder on the host: what it must hold, and its files opened for the children.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wire::{Fault, Kind};

/// The guest kernel.
const KERNEL: &str = "vmlinux";
/// The guest's read-only root.
const ROOT: &str = "root.erofs";
/// The data disk that new VMs begin with.
const TEMPLATE: &str = "data.btrfs";
/// What went in.
const MANIFEST: &str = "manifest.json";

/// A manifest is a few KiB; the reader must end.
const MANIFEST_MAX: u64 = 4 << 20;

/// An image whose files are all there.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    folder: PathBuf,
    manifest: Manifest,
}

/// The part of the manifest that matters here; the image's recipe writes much more into it.
#[derive(Debug, Clone, Default, Deserialize)]
struct Manifest {
    #[serde(default)]
    build: String,
    #[serde(default)]
    extras: BTreeMap<String, Extra>,
}

/// One image that a guest may fetch when it needs it.
#[derive(Debug, Clone, Deserialize)]
struct Extra {
    file: String,
    sha256: String,
}

impl Image {
    /// Looks at the image in `folder`.
    ///
    /// # Errors
    /// A fault that names the missing or unreadable file.
    pub(crate) fn open(folder: &Path) -> Result<Self, Fault> {
        for name in [KERNEL, ROOT, TEMPLATE, MANIFEST] {
            let path = folder.join(name);
            let found = std::fs::metadata(&path).map_err(|error| missing(&path, &error))?;
            if !found.is_file() || found.len() == 0 {
                return Err(damaged(&path).cause("the file is empty or no file"));
            }
        }
        let path = folder.join(MANIFEST);
        let file = File::open(&path).map_err(|error| missing(&path, &error))?;
        let manifest = serde_json::from_reader(io::Read::take(file, MANIFEST_MAX))
            .map_err(|error| damaged(&path).because(&error))?;
        Ok(Self {
            folder: folder.to_owned(),
            manifest,
        })
    }

    /// Opens the kernel.
    ///
    /// # Errors
    /// When it is gone or not an ELF file, as after an interrupted copy.
    pub(crate) fn kernel(&self) -> Result<File, Fault> {
        let path = self.folder.join(KERNEL);
        let file = File::open(&path).map_err(|error| missing(&path, &error))?;
        let mut magic = [0; 4];
        match std::os::unix::fs::FileExt::read_exact_at(&file, &mut magic, 0) {
            Ok(()) if magic == *b"\x7fELF" => Ok(file),
            _ => Err(damaged(&path).cause("it is not an ELF kernel")),
        }
    }

    /// Opens the root file system.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn root(&self) -> Result<File, Fault> {
        let path = self.folder.join(ROOT);
        File::open(&path).map_err(|error| missing(&path, &error))
    }

    /// Opens the template of data disks.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn template(&self) -> Result<File, Fault> {
        let path = self.folder.join(TEMPLATE);
        File::open(&path).map_err(|error| missing(&path, &error))
    }

    /// Returns the identity of the build.
    pub(crate) fn build(&self) -> &str {
        &self.manifest.build
    }

    /// Opens the extra image `name` with its size and hash; `None` when the manifest has no such extra or its
    /// file is not there. The name comes from the guest: it is looked up, never made into a path.
    pub(crate) fn extra(&self, name: &str) -> Option<(File, u64, [u8; 32])> {
        let extra = self.manifest.extras.get(name)?;
        if extra.file.contains('/') {
            return None;
        }
        let file = File::open(self.folder.join(&extra.file)).ok()?;
        let size = file.metadata().ok()?.len();
        Some((file, size, hash(&extra.sha256)?))
    }
}

fn hash(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn missing(path: &Path, error: &io::Error) -> Fault {
    let message = format!("cannot open guest image file {}", path.display());
    Fault::new(Kind::NotFound, "E-IMAGE-MISSING", message)
        .because(error)
        .hint("build the image: cargo xtask image")
}

fn damaged(path: &Path) -> Fault {
    let message = format!("guest image file {} is damaged", path.display());
    Fault::new(Kind::Invalid, "E-IMAGE-DAMAGED", message)
        .hint("build the image again: cargo xtask image")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(manifest: &str) -> (tempfile::TempDir, Result<Image, Fault>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [(KERNEL, "\x7fELF"), (ROOT, "r"), (TEMPLATE, "t")] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        std::fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        let image = Image::open(folder.path());
        (folder, image)
    }

    #[test]
    fn only_extras_in_the_manifest_are_opened() {
        let zeros = "00".repeat(32);
        let manifest = format!(
            r#"{{"build":"b","packages":[],"extras":{{
                "more":{{"file":"more.erofs","sha256":"{zeros}"}},
                "up":{{"file":"../up","sha256":"{zeros}"}}}}}}"#
        );
        let (folder, image) = image(&manifest);
        let image = image.unwrap();
        assert!(image.extra("more").is_none(), "its file is not there yet");
        std::fs::write(folder.path().join("more.erofs"), "12345").unwrap();
        let (_, size, sha256) = image.extra("more").unwrap();
        assert_eq!((size, sha256), (5, [0; 32]));
        for name in ["up", "../root.erofs", "root.erofs", ""] {
            assert!(image.extra(name).is_none(), "{name} was opened");
        }
    }

    #[test]
    fn a_damaged_manifest_names_the_file() {
        let (folder, image) = image("{");
        let fault = image.unwrap_err();
        assert_eq!(fault.parts().code, "E-IMAGE-DAMAGED");
        let path = folder.path().join(MANIFEST);
        assert!(fault.parts().message.contains(path.to_str().unwrap()));
    }

    #[test]
    fn a_missing_kernel_is_not_found() {
        let (folder, _) = image("{}");
        std::fs::remove_file(folder.path().join(KERNEL)).unwrap();
        let fault = Image::open(folder.path()).unwrap_err();
        assert_eq!(fault.parts().code, "E-IMAGE-MISSING");
    }

    #[test]
    fn a_kernel_that_is_no_kernel_is_damaged() {
        let (folder, image) = image("{}");
        std::fs::write(folder.path().join(KERNEL), "text").unwrap();
        assert_eq!(
            image.unwrap().kernel().unwrap_err().parts().code,
            "E-IMAGE-DAMAGED"
        );
    }
}
