//! The members of an OCI archive, found by name wherever they stand in it, their digests checked.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};
use wire::Fault;

use super::super::compression::plain;
use super::super::tree::{inside, room, too_much};
use super::super::unpack::spoiled;
use super::refused;
use crate::fault::OrFault;

/// Members of one archive: a few for each layer.
const MEMBERS_MAX: usize = 10_000;

/// Largest manifest or configuration; registries allow 4 MiB.
const JSON_MAX: u64 = 4 << 20;

/// An archive kept as a file, with the places of its members.
pub(super) struct Blobs {
    path: PathBuf,
    members: HashMap<PathBuf, Member>,
}

enum Member {
    At {
        offset: u64,
        length: u64,
    },
    /// `docker save` once stored a layer that it had already as a link to it.
    Link(PathBuf),
}

impl Blobs {
    /// Keeps the (compressed) `stream` in `scratch` and reads what is where.
    pub(super) fn keep(stream: impl Read, scratch: &Path) -> Result<Self, Fault> {
        let path = scratch.join("archive");
        let unwritable = || format!("cannot create {}", path.display());
        let mut file = File::create_new(&path).or_fault("E-IMPORT", unwritable)?;
        let stream = plain(stream).map_err(spoiled)?;
        let room = room(scratch).map_err(spoiled)?;
        let kept = io::copy(&mut stream.take(room.saturating_add(1)), &mut file);
        if kept.map_err(spoiled)? > room {
            return Err(spoiled(too_much()));
        }
        let file = File::open(&path).or_fault("E-IMPORT", unwritable)?;
        let members = members(BufReader::new(file)).map_err(spoiled)?;
        Ok(Self { path, members })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(Path::new(name))
    }

    /// Opens a member. One that is named by its digest is checked against it.
    pub(super) fn open(&self, name: &str) -> Result<Blob, Fault> {
        let path = inside(Path::new(name)).map_err(spoiled)?;
        let (offset, length) = self
            .find(&path)
            .ok_or_else(|| refused(format!("{name:?} is not in the archive")))?;
        let open = || -> io::Result<File> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(file)
        };
        let file = open().or_fault("E-IMPORT", || "cannot read the archive again".to_owned())?;
        let digest = name.strip_prefix("blobs/sha256/").map(str::to_owned);
        Ok(Blob {
            content: file.take(length),
            hash: Sha256::new(),
            digest,
        })
    }

    fn find(&self, path: &Path) -> Option<(u64, u64)> {
        match self.members.get(path)? {
            Member::At { offset, length } => Some((*offset, *length)),
            Member::Link(target) => match self.members.get(target)? {
                Member::At { offset, length } => Some((*offset, *length)),
                Member::Link(_) => None,
            },
        }
    }

    /// Reads a member as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, Fault> {
        let mut blob = self.open(name)?;
        if blob.content.limit() > JSON_MAX {
            return Err(refused(format!("{name:?} is too long")));
        }
        let mut text = Vec::new();
        blob.read_to_end(&mut text).map_err(spoiled)?;
        blob.verify()?;
        serde_json::from_slice(&text).map_err(|error| refused(format!("{name:?}: {error}")))
    }

    /// Removes the file.
    pub(super) fn discard(self) -> Result<(), Fault> {
        std::fs::remove_file(&self.path).or_fault("E-IMPORT", || {
            format!("cannot remove {}", self.path.display())
        })
    }
}

fn members(archive: impl Read + Seek) -> io::Result<HashMap<PathBuf, Member>> {
    let mut found = HashMap::new();
    let mut archive = Archive::new(archive);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let path = inside(&entry.path()?)?;
        let member = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => Member::At {
                offset: entry.raw_file_position(),
                length: entry.size(),
            },
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name()?.unwrap_or_default().into_owned();
                Member::Link(beside(&path, &target))
            }
            _ => continue,
        };
        if found.len() == MEMBERS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many members",
            ));
        }
        found.insert(path, member);
    }
    Ok(found)
}

/// Resolves a link's `../other/layer.tar` by words alone; it only has to name another member.
fn beside(link: &Path, target: &Path) -> PathBuf {
    let mut path = link.parent().unwrap_or(Path::new("")).to_owned();
    for part in target.components() {
        match part {
            std::path::Component::ParentDir => drop(path.pop()),
            std::path::Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

/// A member being read.
pub(super) struct Blob {
    content: io::Take<File>,
    hash: Sha256,
    digest: Option<String>,
}

impl Blob {
    /// Reads what is left and compares the whole with the digest in its name.
    pub(super) fn verify(mut self) -> Result<(), Fault> {
        io::copy(&mut self, &mut io::sink()).map_err(spoiled)?;
        let Some(digest) = self.digest else {
            return Ok(());
        };
        let found: String = self
            .hash
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if found == digest {
            return Ok(());
        }
        Err(refused(format!(
            "content that should have the digest {digest} has {found}"
        )))
    }
}

impl Read for Blob {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(out)?;
        self.hash.update(&out[..read]);
        Ok(read)
    }
}
