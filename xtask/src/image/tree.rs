//! A root file system in memory: filled from .deb files, thinned by a list, written as a tar whose
//! bytes depend on its content alone. Nothing is unpacked on this machine and no package's script
//! runs, so no root is needed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::EPOCH;

/// Directories of the file system's root that are links into /usr on every Debian since 12.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Links followed before a path counts as a loop, as many as Linux follows.
const LINKS_MAX: usize = 40;

/// One file, folder or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Permission bits.
    pub(super) mode: u32,
    /// Owner and group.
    pub(super) owner: (u64, u64),
    /// What it is.
    pub(super) kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A folder.
    Folder,
    /// A file with this content.
    File(Vec<u8>),
    /// A symbolic link to this target.
    Link(String),
}

/// Paths, without a slash in front, and what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree(pub(super) BTreeMap<String, Node>);

impl Tree {
    /// Adds everything that the package in `deb` installs.
    ///
    /// # Errors
    /// When the file is not a package or holds something other than files, folders and links.
    pub(super) fn add_deb(&mut self, deb: &Path) -> Result<()> {
        let mut unpack = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(deb)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start dpkg-deb")?;
        let stdout = unpack
            .stdout
            .take()
            .expect("stdout was just asked to be a pipe");
        let added = self.add_tar(stdout);
        let status = unpack.wait().context("cannot wait for dpkg-deb")?;
        added.with_context(|| format!("cannot read {}", deb.display()))?;
        if !status.success() {
            bail!(
                "cannot unpack {}: dpkg-deb failed ({status})",
                deb.display()
            );
        }
        Ok(())
    }

    /// Adds everything in a tar, later things over earlier ones.
    ///
    /// # Errors
    /// When it is cut short or holds something other than files, folders and links.
    pub(super) fn add_tar(&mut self, reader: impl Read) -> Result<()> {
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries().context("cannot read the archive")? {
            let mut entry = entry.context("cannot read the archive")?;
            let path = merged(
                &entry
                    .path()
                    .context("bad path in the archive")?
                    .to_string_lossy(),
            );
            let header = entry.header();
            let mode = header.mode().context("bad mode in the archive")? & 0o7777;
            let owner = (
                header.uid().context("bad owner")?,
                header.gid().context("bad group")?,
            );
            let target = entry.link_name().context("bad link in the archive")?;
            let target = target.map(|target| target.to_string_lossy().into_owned());
            let kind = match (entry.header().entry_type(), target) {
                (tar::EntryType::Directory, _) => Kind::Folder,
                (tar::EntryType::Symlink, Some(target)) => Kind::Link(target),
                (tar::EntryType::Link, Some(target)) => match self.0.get(&merged(&target)) {
                    Some(node) => node.kind.clone(),
                    None => bail!("{path} is a hard link to {target}, which is not there"),
                },
                (tar::EntryType::Regular, _) => {
                    let mut content = Vec::new();
                    entry
                        .read_to_end(&mut content)
                        .context("cannot read the archive")?;
                    Kind::File(content)
                }
                (kind, _) => bail!("{path} is of kind {kind:?}"),
            };
            let was_there = matches!((&kind, self.0.get(&path)), (Kind::Folder, Some(_)));
            if !path.is_empty() && !was_there {
                self.0.insert(path, Node { mode, owner, kind });
            }
        }
        Ok(())
    }

    /// Adds the files below `folder` of this checkout, readable for all and owned by root.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn add_folder(&mut self, folder: &Path) -> Result<()> {
        for (path, content, executable) in files_below(folder)? {
            self.put(
                &path,
                if executable { 0o755 } else { 0o644 },
                Kind::File(content),
            );
        }
        Ok(())
    }

    /// Puts one thing at `path`, owned by root, and the folders above it.
    pub(super) fn put(&mut self, path: &str, mode: u32, kind: Kind) {
        for (end, _) in path.match_indices('/') {
            let folder = Node {
                mode: 0o755,
                owner: (0, 0),
                kind: Kind::Folder,
            };
            self.0.entry(path[..end].to_owned()).or_insert(folder);
        }
        self.0.insert(
            path.to_owned(),
            Node {
                mode,
                owner: (0, 0),
                kind,
            },
        );
    }

    /// Returns the path that `path` leads to when every link on the way is followed, if it exists.
    pub(super) fn resolve(&self, path: &str) -> Option<String> {
        self.follow(path)?.pop()
    }

    /// Returns the links on the way that `path` leads, and the path at its end, if it exists.
    pub(super) fn follow(&self, path: &str) -> Option<Vec<String>> {
        let mut path = merged(path);
        let mut way = Vec::new();
        while way.len() < LINKS_MAX {
            let link = prefixes(&path).find_map(|prefix| match &self.0.get(prefix)?.kind {
                Kind::Link(target) => Some((prefix.to_owned(), target.clone())),
                _ => None,
            });
            let Some((link, target)) = link else {
                let exists = self.0.contains_key(&path);
                way.push(path);
                return exists.then_some(way);
            };
            let rest = path[link.len()..].to_owned();
            let parent = link.rsplit_once('/').map_or("", |(parent, _)| parent);
            let joined = if target.starts_with('/') {
                target
            } else {
                format!("{parent}/{target}")
            };
            path = merged(&format!("{joined}{rest}"));
            way.push(link);
        }
        None
    }

    /// Returns the content of the file at `path`, following links.
    pub(super) fn content(&self, path: &str) -> Option<&[u8]> {
        match &self.0.get(&self.resolve(path)?)?.kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// Writes the tree as a tar, sorted by path, every time [`EPOCH`].
    ///
    /// # Errors
    /// When `writer` does.
    pub(super) fn write_tar(&self, writer: impl io::Write) -> Result<()> {
        let mut builder = tar::Builder::new(writer);
        let top = Node {
            mode: 0o755,
            owner: (0, 0),
            kind: Kind::Folder,
        };
        let top = std::iter::once((".", &top));
        let nodes = self.0.iter().map(|(path, node)| (path.as_str(), node));
        for (path, node) in top.chain(nodes) {
            let mut header = tar::Header::new_gnu();
            header.set_mode(node.mode);
            header.set_uid(node.owner.0);
            header.set_gid(node.owner.1);
            header.set_mtime(EPOCH);
            header.set_size(0);
            let written = match &node.kind {
                Kind::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    builder.append_data(&mut header, format!("{path}/"), io::empty())
                }
                Kind::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    builder.append_link(&mut header, path, target)
                }
                Kind::File(content) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, path, content.as_slice())
                }
            };
            written.with_context(|| format!("cannot write {path} to the archive"))?;
        }
        builder.finish().context("cannot end the archive")
    }
}

/// Returns every regular file below `folder`: its path there, its content, whether it is executable;
/// sorted by path.
///
/// # Errors
/// When something cannot be read.
pub(super) fn files_below(folder: &Path) -> Result<Vec<(String, Vec<u8>, bool)>> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        let context = || format!("cannot read {}", current.display());
        for entry in fs::read_dir(&current).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let data = fs::metadata(&path).with_context(context)?;
            if data.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path
                .strip_prefix(folder)
                .expect("walked from there")
                .to_string_lossy();
            let content =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            found.push((
                name.into_owned(),
                content,
                data.permissions().mode() & 0o100 != 0,
            ));
        }
    }
    found.sort();
    Ok(found)
}

/// Normalizes a path: no `.`, `..` or slashes at its ends, and /bin and its like under /usr.
fn merged(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    if parts.len() > 1 && MERGED.contains(&parts[0]) {
        parts.insert(0, "usr");
    }
    parts.join("/")
}

/// Returns `a`, `a/b`, `a/b/c` of `a/b/c`.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let ends = path
        .match_indices('/')
        .map(|(end, _)| end)
        .chain([path.len()]);
    ends.map(move |end| &path[..end])
}

#[cfg(test)]
mod tests;
