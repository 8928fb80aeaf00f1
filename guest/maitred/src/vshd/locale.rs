//! The host's language and formats in a container, as far as the container has them: a program that is told of a
//! locale that is not installed complains, or falls back to ASCII.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::container::Rootfs;

/// Where glibc has its locales: a directory each, or all in one archive. musl has none and takes every name.
const FOLDER: &str = "usr/lib/locale";
const ARCHIVE: &str = "usr/lib/locale/locale-archive";

/// The archive's first word, and where its table of names begins and how long it is (locarchive.h of glibc).
const MAGIC: u32 = 0xde02_0109;
const HEADER: usize = 32;
const NAMES_AT: usize = 20;
const NAMES_USED: usize = 24;

/// All locales of glibc together have names of 20 KiB.
const NAMES_MAX: u32 = 1 << 20;

/// Returns the variables of `wanted` whose locale is there.
pub(super) fn known(rootfs: &Rootfs, wanted: HashMap<String, String>) -> BTreeMap<String, String> {
    let any = !rootfs.exists(FOLDER);
    let is_known = |(name, value): &(String, String)| {
        // A list of languages to look for translations in; one that is not there is passed over silently.
        any || name == "LANGUAGE" || has(rootfs, value)
    };
    wanted.into_iter().filter(is_known).collect()
}

fn has(rootfs: &Rootfs, locale: &str) -> bool {
    if matches!(locale, "C" | "POSIX") {
        return true;
    }
    let name = normal(locale);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'@' | b'-');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
        return false;
    }
    rootfs.exists(Path::new(FOLDER).join(&name))
        || names(rootfs).is_ok_and(|names| {
            names
                .split(|byte| *byte == 0)
                .any(|found| found == name.as_bytes())
        })
}

/// Returns `language_TERRITORY.codeset@modifier` with the code set as glibc stores it: letters and digits, small.
fn normal(locale: &str) -> String {
    let (rest, modifier) = locale.split_once('@').unwrap_or((locale, ""));
    let (language, codeset) = rest.split_once('.').unwrap_or((rest, ""));
    let kept = codeset.chars().filter(char::is_ascii_alphanumeric);
    let codeset: String = kept.map(|c| c.to_ascii_lowercase()).collect();
    let part = |mark: &str, text: &str| {
        if text.is_empty() {
            String::new()
        } else {
            format!("{mark}{text}")
        }
    };
    format!("{language}{}{}", part(".", &codeset), part("@", modifier))
}

/// Reads the archive's table of names, each ended by a zero.
fn names(rootfs: &Rootfs) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let archive = File::from(rootfs.open_at(ARCHIVE, flags)?);
    let mut header = [0; HEADER];
    archive.read_exact_at(&mut header, 0)?;
    let word = |at: usize| {
        let bytes = header[at..at + 4].try_into().expect("four bytes of it");
        u32::from_ne_bytes(bytes)
    };
    let used = word(NAMES_USED);
    if word(0) != MAGIC || used > NAMES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut names = vec![0; used as usize];
    archive.read_exact_at(&mut names, word(NAMES_AT).into())?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> (tempfile::TempDir, Rootfs) {
        let folder = tempfile::tempdir().unwrap();
        let locales = folder.path().join(FOLDER);
        std::fs::create_dir_all(locales.join("C.utf8")).unwrap();
        let names = b"\0de_DE.utf8\0en_DK.iso88591\0";
        let mut archive: Vec<u8> = [MAGIC, 0, 0, 0, 0, 40, names.len() as u32, 64, 0, 0]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        archive.extend(names);
        std::fs::write(locales.join("locale-archive"), archive).unwrap();
        let rootfs = Rootfs::open(folder.path()).unwrap();
        (folder, rootfs)
    }

    #[test]
    fn only_locales_that_are_there_are_passed_on() {
        let (_folder, rootfs) = container();
        for there in [
            "C",
            "POSIX",
            "C.UTF-8",
            "de_DE.UTF-8",
            "de_DE.utf8",
            "en_DK.ISO-8859-1",
        ] {
            assert!(has(&rootfs, there), "{there} is missing");
        }
        for missing in [
            "",
            "de_DE",
            "fr_FR.UTF-8",
            "../locale",
            ".",
            "a/b",
            "de_DE.UTF-8@euro",
        ] {
            assert!(!has(&rootfs, missing), "{missing} was found");
        }
        let wanted = [
            ("LANG", "fr_FR.UTF-8"),
            ("LC_TIME", "de_DE.UTF-8"),
            ("LANGUAGE", "fr:de"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let passed = known(&rootfs, wanted.into());
        assert_eq!(passed.keys().collect::<Vec<_>>(), ["LANGUAGE", "LC_TIME"]);
    }

    #[test]
    fn without_glibc_every_name_is_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(folder.path()).unwrap();
        let wanted = HashMap::from([("LANG".to_owned(), "fr_FR.UTF-8".to_owned())]);
        assert_eq!(known(&rootfs, wanted).len(), 1);
    }

    #[test]
    fn an_archive_of_another_kind_holds_nothing() {
        let (folder, rootfs) = container();
        let archive = folder.path().join(ARCHIVE);
        for bytes in [&b""[..], &[0; 64], &[0xff; 64]] {
            std::fs::write(&archive, bytes).unwrap();
            assert!(!has(&rootfs, "de_DE.UTF-8"));
        }
        let mut huge = [0xff; 64];
        huge[..4].copy_from_slice(&MAGIC.to_ne_bytes());
        std::fs::write(&archive, huge).unwrap();
        assert!(!has(&rootfs, "de_DE.UTF-8"));
    }
}
