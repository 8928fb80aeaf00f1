//! The guest image folder on the host: what it must hold, and its files opened for the children, each checked against
//! the manifest before anything is started from it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wire::{Fault, Kind};

mod seen;

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
    /// Where is remembered which files were found right.
    memory: PathBuf,
}

/// The part of the manifest that matters here; the image's recipe writes much more into it.
#[derive(Debug, Clone, Default, Deserialize)]
struct Manifest {
    #[serde(default)]
    build: String,
    #[serde(default)]
    extras: BTreeMap<String, Extra>,
    #[serde(default)]
    outputs: BTreeMap<String, Output>,
}

/// One file of the image.
#[derive(Debug, Clone, Deserialize)]
struct Output {
    sha256: String,
    bytes: u64,
}

/// One image that a guest may fetch when it needs it.
#[derive(Debug, Clone, Deserialize)]
struct Extra {
    file: String,
    sha256: String,
}

impl Image {
    /// Looks at the image in `folder`: its files are there with the sizes that the manifest names. `memory` is the
    /// file that remembers which of them were read in full.
    ///
    /// # Errors
    /// A fault that names the missing or unreadable file.
    pub(crate) fn open(folder: &Path, memory: PathBuf) -> Result<Self, Fault> {
        let path = folder.join(MANIFEST);
        let file = File::open(&path).map_err(|error| missing(&path, &error))?;
        let manifest: Manifest = serde_json::from_reader(io::Read::take(file, MANIFEST_MAX))
            .map_err(|error| damaged(&path).because(&error))?;
        let image = Self {
            folder: folder.to_owned(),
            manifest,
            memory,
        };
        for name in [KERNEL, ROOT, TEMPLATE] {
            let path = image.folder.join(name);
            let found = std::fs::metadata(&path).map_err(|error| missing(&path, &error))?;
            let wanted = image.output(name)?.bytes;
            if !found.is_file() || found.len() != wanted {
                let has = found.len();
                return Err(damaged(&path).cause(format!(
                    "it has {has} bytes, in the manifest it has {wanted}"
                )));
            }
        }
        Ok(image)
    }

    /// Opens the kernel. Reads all of it when it is new.
    ///
    /// # Errors
    /// When it is gone, or not what the manifest says.
    pub(crate) fn kernel(&self) -> Result<File, Fault> {
        self.checked(KERNEL)
    }

    /// Opens the root file system. Reads all of it when it is new.
    ///
    /// # Errors
    /// When it is gone, or not what the manifest says.
    pub(crate) fn root(&self) -> Result<File, Fault> {
        self.checked(ROOT)
    }

    /// Opens the template of data disks. Reads all of it when it is new.
    ///
    /// # Errors
    /// When it is gone, or not what the manifest says.
    pub(crate) fn template(&self) -> Result<File, Fault> {
        self.checked(TEMPLATE)
    }

    fn checked(&self, name: &str) -> Result<File, Fault> {
        let path = self.folder.join(name);
        let mut file = File::open(&path).map_err(|error| missing(&path, &error))?;
        let wanted = &self.output(name)?.sha256;
        match seen::is_right(&mut file, &path, wanted, &self.memory) {
            Ok(true) => Ok(file),
            Ok(false) => Err(damaged(&path).cause("its SHA-256 is not the one in the manifest")),
            Err(error) => Err(damaged(&path).because(&error)),
        }
    }

    fn output(&self, name: &str) -> Result<&Output, Fault> {
        self.manifest.outputs.get(name).ok_or_else(|| {
            damaged(&self.folder.join(MANIFEST)).cause(format!("it does not name {name}"))
        })
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
    let folder = path.parent().unwrap_or(path).display();
    Fault::new(Kind::Invalid, "E-IMAGE-DAMAGED", message).hint(format!(
        "build the image again: rm -r {folder} && cargo xtask image"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of an image and their SHA-256 (sha256sum(1)).
    const FILES: [(&str, &str, &str); 3] = [
        (
            KERNEL,
            "k",
            "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a",
        ),
        (
            ROOT,
            "r",
            "454349e422f05297191ead13e21d3db520e5abef52055e4964b82fb213f593a1",
        ),
        (
            TEMPLATE,
            "t",
            "e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8",
        ),
    ];

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new(extras: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut outputs = Vec::new();
            for (name, content, sha256) in FILES {
                std::fs::write(folder.path().join(name), content).unwrap();
                outputs.push(format!(r#""{name}":{{"sha256":"{sha256}","bytes":1}}"#));
            }
            let outputs = outputs.join(",");
            let text = format!(
                r#"{{"build":"b","packages":[],"outputs":{{{outputs}}},"extras":{{{extras}}}}}"#
            );
            std::fs::write(folder.path().join(MANIFEST), text).unwrap();
            Self(folder)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn open(&self) -> Result<Image, Fault> {
            Image::open(self.0.path(), self.path("memory"))
        }
    }

    #[test]
    fn only_extras_in_the_manifest_are_opened() {
        let zeros = "00".repeat(32);
        let fixture = Fixture::new(&format!(
            r#""more":{{"file":"more.erofs","sha256":"{zeros}"}},
               "up":{{"file":"../up","sha256":"{zeros}"}}"#
        ));
        let image = fixture.open().unwrap();
        assert!(image.extra("more").is_none(), "its file is not there yet");
        std::fs::write(fixture.path("more.erofs"), "12345").unwrap();
        let (_, size, sha256) = image.extra("more").unwrap();
        assert_eq!((size, sha256), (5, [0; 32]));
        for name in ["up", "../root.erofs", "root.erofs", ""] {
            assert!(image.extra(name).is_none(), "{name} was opened");
        }
    }

    #[test]
    fn a_damaged_manifest_names_the_file() {
        let fixture = Fixture::new("");
        for text in ["{", "{}"] {
            std::fs::write(fixture.path(MANIFEST), text).unwrap();
            let fault = fixture.open().unwrap_err();
            assert_eq!(fault.parts().code, "E-IMAGE-DAMAGED");
            let path = fixture.path(MANIFEST);
            assert!(fault.parts().message.contains(path.to_str().unwrap()));
        }
    }

    #[test]
    fn a_missing_file_is_not_found_and_one_of_another_size_is_damaged() {
        for name in [KERNEL, ROOT, TEMPLATE] {
            let fixture = Fixture::new("");
            std::fs::write(fixture.path(name), "more").unwrap();
            assert_eq!(fixture.open().unwrap_err().parts().code, "E-IMAGE-DAMAGED");
            std::fs::remove_file(fixture.path(name)).unwrap();
            assert_eq!(fixture.open().unwrap_err().parts().code, "E-IMAGE-MISSING");
        }
    }

    #[test]
    fn one_wrong_byte_is_found_when_the_file_is_opened() {
        let fixture = Fixture::new("");
        let open = |name: &str| {
            let image = fixture.open().unwrap();
            match name {
                KERNEL => image.kernel(),
                ROOT => image.root(),
                _ => image.template(),
            }
        };
        for (name, _, _) in FILES {
            open(name).unwrap();
            std::fs::write(fixture.path(name), "x").unwrap();
            let fault = open(name).unwrap_err();
            assert_eq!(fault.parts().code, "E-IMAGE-DAMAGED");
            assert!(fault.parts().message.contains(name));
        }
    }
}
