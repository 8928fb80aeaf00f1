//! Which image files were read in full and found to be what the manifest says, on the host: a file is hashed once, and
//! again only when another file is in its place or it was written to. So a warm start pays one `fstat` for each.
//!
//! This finds damage (a bad disk, a broken copy), not an attacker: whoever can write the image can write this too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::disk::export::hex;

/// Read at once.
const BLOCK: usize = 1 << 20;

/// Held while files are checked, so that two starts at once read them once, and one of them writes at a time.
static TURN: Mutex<()> = Mutex::new(());

/// What tells a file from every other, and from itself before it was written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Nobody can set this one back.
    changed: (i64, i64),
    sha256: String,
}

/// The files that were found right, by their paths.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Seen(BTreeMap<PathBuf, Identity>);

/// Returns whether `file`, opened at `path`, has the SHA-256 `expected`, reading it only if that is not known from
/// `memory`. Leaves the file's position at its start.
///
/// # Errors
/// When it cannot be read.
pub(super) fn is_right(
    file: &mut File,
    path: &Path,
    expected: &str,
    memory: &Path,
) -> io::Result<bool> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut seen = Seen::load(memory);
    // Taken before reading: a file that is written to meanwhile counts as another one the next time.
    let identity = identity(file, expected)?;
    if seen.0.get(path) == Some(&identity) {
        return Ok(true);
    }
    if hash(file)? != expected {
        return Ok(false);
    }
    seen.0.insert(path.to_owned(), identity);
    if let Err(error) = seen.save(memory) {
        tracing::warn!(path = %memory.display(), %error, "image files will be read again");
    }
    Ok(true)
}

impl Seen {
    /// Reads what is remembered; a missing or damaged file is nothing.
    fn load(memory: &Path) -> Self {
        let text = std::fs::read(memory).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes it as a whole, without files that are gone.
    fn save(&mut self, memory: &Path) -> io::Result<()> {
        self.0.retain(|path, _| path.exists());
        if let Some(folder) = memory.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let fresh = memory.with_extension("new");
        std::fs::write(&fresh, serde_json::to_vec(self).map_err(io::Error::other)?)?;
        std::fs::rename(fresh, memory)
    }
}

fn identity(file: &File, sha256: &str) -> io::Result<Identity> {
    let found = file.metadata()?;
    Ok(Identity {
        device: found.dev(),
        inode: found.ino(),
        bytes: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
        sha256: sha256.to_owned(),
    })
}

fn hash(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block) {
            Ok(0) => break,
            Ok(count) => hash.update(&block[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    file.rewind()?;
    Ok(hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's example for the message "abc".
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_is_read_again_when_it_was_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, memory) = (folder.path().join("file"), folder.path().join("new/memory"));
        let right = || {
            let mut file = File::open(&path).unwrap();
            let right = is_right(&mut file, &path, ABC, &memory).unwrap();
            assert_eq!(file.stream_position().unwrap(), 0);
            right
        };
        std::fs::write(&path, "abc").unwrap();
        assert!(right());
        assert!(right());
        std::fs::write(&path, "abd").unwrap();
        assert!(!right());
        // Damage is not remembered, and a mended file is right at once.
        std::fs::write(&path, "abc").unwrap();
        assert!(right());
    }

    #[test]
    fn what_is_known_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, memory) = (folder.path().join("file"), folder.path().join("memory"));
        std::fs::write(&path, "abc").unwrap();
        assert!(is_right(&mut File::open(&path).unwrap(), &path, ABC, &memory).unwrap());
        // A descriptor that cannot be read stands in for one that must not be.
        let mut closed = File::options().append(true).open(&path).unwrap();
        assert!(is_right(&mut closed, &path, ABC, &memory).unwrap());
        std::fs::write(&memory, "{").unwrap();
        assert!(is_right(&mut closed, &path, ABC, &memory).is_err());
    }
}
