//! What an export says about itself: one zstd-compressed tarball with `manifest.json`, `rootfs/…`, and
//! `checksums` (the sums of all files, as `sha256sum --check` reads them) at its end.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wire::{ContainerName, Fault, Kind};

use super::config::{Config, User};
use super::import::Imported;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const CHECKSUMS: &str = "checksums";

const FORMAT: &str = "testudo-container";
const VERSION: u32 = 1;

/// The first member of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: String,
    version: u32,
    name: ContainerName,
    user: Option<User>,
    created_s: u64,
    environment: Vec<(String, String)>,
}

impl Manifest {
    /// Describes the container `name`.
    pub(super) fn of(name: &ContainerName, config: &Config) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            name: name.clone(),
            user: config.user.clone(),
            created_s: config.created_s,
            environment: config.environment.clone(),
        }
    }

    /// Reads one; refuses what is not ours, or of a later version.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let message = "the export's manifest cannot be read";
        let refused = || Fault::new(Kind::Invalid, "E-IMPORT", message);
        let head: Head = serde_json::from_str(text).map_err(|e| refused().because(&e))?;
        if head.format != FORMAT {
            return Err(refused().cause(format!("it is not a {FORMAT}")));
        }
        if head.version > VERSION {
            let cause = format!(
                "its version is {}, this testudo reads {VERSION}",
                head.version
            );
            return Err(refused()
                .cause(cause)
                .hint("use the testudo that made it, or a later one"));
        }
        serde_json::from_str(text).map_err(|e| refused().because(&e))
    }

    /// Returns what the new container takes over.
    pub(super) fn imported(self) -> Imported {
        let Self {
            name,
            user,
            environment,
            ..
        } = self;
        Imported {
            environment,
            user,
            name: Some(name),
        }
    }
}

/// Returns the line of a file whose content went through `hash`, as sha256sum(1) writes it.
pub(super) fn sum_line(hash: Sha256, path: &Path) -> Vec<u8> {
    let sum: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let name = path.as_os_str().as_bytes();
    let is_odd = name
        .iter()
        .any(|byte| matches!(byte, b'\\' | b'\n' | b'\r'));
    let mut line = Vec::with_capacity(name.len() + 70);
    if is_odd {
        line.push(b'\\');
    }
    line.extend(format!("{sum}  ").into_bytes());
    line.extend(if is_odd { escaped(name) } else { name.to_vec() });
    line.push(b'\n');
    line
}

fn escaped(name: &[u8]) -> Vec<u8> {
    name.iter()
        .flat_map(|byte| match byte {
            b'\\' => b"\\\\".to_vec(),
            b'\n' => b"\\n".to_vec(),
            b'\r' => b"\\r".to_vec(),
            other => vec![*other],
        })
        .collect()
}

/// Returns where a file of the root file system stands in the export.
pub(super) fn member_path(path: &Path) -> std::path::PathBuf {
    Path::new(OsStr::new(super::home::ROOTFS)).join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_of_others_and_of_later_versions_are_refused() {
        let name: ContainerName = "penguin".parse().unwrap();
        let manifest = Manifest::of(&name, &Config::new(10, None));
        let text = serde_json::to_string(&manifest).unwrap();
        assert_eq!(Manifest::parse(&text).unwrap(), manifest);
        let later = text.replace("\"version\":1", "\"version\":2");
        let foreign = text.replace(FORMAT, "other");
        let renamed = text.replace("penguin", "../../etc");
        for bad in ["", "{}", &later, &foreign, &renamed] {
            assert_eq!(
                Manifest::parse(bad).unwrap_err().parts().code,
                "E-IMPORT",
                "{bad}"
            );
        }
    }

    #[test]
    fn sums_are_written_as_sha256sum_does() {
        let line =
            |name: &str| String::from_utf8(sum_line(Sha256::new(), Path::new(name))).unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(line("rootfs/a b"), format!("{empty}  rootfs/a b\n"));
        assert_eq!(line("rootfs/a\nb"), format!("\\{empty}  rootfs/a\\nb\n"));
    }
}
