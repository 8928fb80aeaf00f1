//! Names a build step's result by a hash of everything that went into it.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// Hexadecimal digits of a key that folder names carry: 64 bits are plenty among a few results.
const SHORT: usize = 16;

/// A hash over labelled inputs, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// Hashes `parts`, each a label and its content. Lengths are hashed too, so that no content can
    /// pass for two parts.
    pub(super) fn of(parts: &[(&str, &[u8])]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            for field in [part.0.as_bytes(), part.1] {
                hash.update((field.len() as u64).to_le_bytes());
                hash.update(field);
            }
        }
        Self(hex(&hash.finalize()))
    }

    /// Returns the SHA-256 of `content` alone, in hexadecimal, as sha256sum(1) says it.
    pub(super) fn sha256(content: &[u8]) -> String {
        hex(&Sha256::digest(content))
    }

    /// Returns the short form that names folders.
    pub(super) fn short(&self) -> &str {
        &self.0[..SHORT]
    }

    /// Returns the whole hash, as the input of another key.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Returns the SHA-256 of a file's content in hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn sha256_of(path: &Path) -> Result<String> {
    let context = || format!("cannot hash {}", path.display());
    let mut file = File::open(path).with_context(context)?;
    let mut sink = HashSink(Sha256::new());
    io::copy(&mut file, &mut sink).with_context(context)?;
    sink.flush().with_context(context)?;
    Ok(hex(&sink.0.finalize()))
}

struct HashSink(Sha256);

impl io::Write for HashSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_changes_with_label_content_and_border() {
        let keys = [
            Key::of(&[("config", b"ab"), ("patch", b"c")]),
            Key::of(&[("config", b"a"), ("patch", b"bc")]),
            Key::of(&[("confia", b"gb"), ("patch", b"c")]),
            Key::of(&[("config", b"ab")]),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[index + 1..].contains(key), "{key} twice");
        }
        assert_eq!(keys[3], Key::of(&[("config", b"ab")]));
    }

    #[test]
    fn file_hash_is_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-4's example for the one-block message "abc".
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(&path).unwrap(), expected);
    }
}
