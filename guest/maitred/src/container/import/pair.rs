//! LXC and LXD images: a tarball with metadata, and the root file system in it or in a second file, a tarball or
//! a squashfs image.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use backhand::{FilesystemReader, InnerNode, Node, NodeHeader, SquashfsFileReader};
use wire::{Fault, Kind as FaultKind};

use super::super::rootfs::Owner;
use super::Imported;
use super::compression::plain;
use super::incoming::Incoming;
use super::tree::{Facts, Kind, Tree};
use super::unpack::{self, Take, member, spoiled};
use crate::fault::OrFault;

/// What a squashfs image begins with (little-endian `hsqs`).
const SQUASHFS: &[u8; 4] = b"hsqs";

/// Where unified images have the root file system.
const TOP: &str = "rootfs";

/// Fills `rootfs` from the pair. The metadata's templates and properties are not used: name, accounts and
/// resolver of a container are ours to write.
pub(super) fn bring(
    incoming: &mut Incoming,
    scratch: &Path,
    rootfs: &Path,
) -> Result<Imported, Fault> {
    let found = metadata(incoming.file(0), rootfs)?;
    let mut second = incoming.file(1);
    let mut head = Vec::new();
    second
        .by_ref()
        .take(SQUASHFS.len() as u64)
        .read_to_end(&mut head)
        .map_err(spoiled)?;
    let whole = io::Cursor::new(head.clone()).chain(second);
    if head == SQUASHFS {
        squashfs(whole, scratch, rootfs)?;
    } else if !head.is_empty() {
        unpack::archive(whole, rootfs, &Take::All)?;
    } else if !found {
        let message = "the image has metadata and no root file system";
        return Err(Fault::new(FaultKind::Invalid, "E-IMPORT", message));
    }
    Ok(Imported::default())
}

/// Reads the first file, unpacking a root file system in it; returns whether there was one.
fn metadata(stream: impl Read, rootfs: &Path) -> Result<bool, Fault> {
    let read = || -> io::Result<(bool, bool)> {
        let mut tree = Tree::open(rootfs)?;
        let mut archive = tar::Archive::new(plain(stream)?);
        let mut named = false;
        for entry in archive.entries()? {
            let entry = entry?;
            named |= entry.path()?.ends_with("metadata.yaml");
            member(&mut tree, entry, &Take::Below(TOP))?;
        }
        io::copy(&mut archive.into_inner(), &mut io::sink())?;
        Ok((named, tree.members() > 0))
    };
    let (named, found) = read().map_err(spoiled)?;
    if named {
        return Ok(found);
    }
    let message = "the image's first file is not its metadata: there is no metadata.yaml in it";
    Err(Fault::new(FaultKind::Invalid, "E-IMPORT", message))
}

/// Unpacks a squashfs image: read by our own process, not mounted, since the kernel's reader is no place for
/// images that anyone made.
fn squashfs(mut stream: impl Read, scratch: &Path, rootfs: &Path) -> Result<(), Fault> {
    let path = scratch.join("image");
    let mut file = File::create_new(&path)
        .or_fault("E-IMPORT", || format!("cannot create {}", path.display()))?;
    io::copy(&mut stream, &mut file).map_err(spoiled)?;
    drop(file);
    let broken = || "the image's squashfs cannot be read".to_owned();
    let file = File::open(&path).or_fault("E-IMPORT", broken)?;
    let image = FilesystemReader::from_reader(BufReader::new(file))
        .map_err(|error| Fault::new(FaultKind::Invalid, "E-IMPORT", broken()).because(&error))?;
    let mut tree = Tree::open(rootfs).map_err(spoiled)?;
    for node in image.files() {
        put(&image, &mut tree, node).map_err(spoiled)?;
    }
    std::fs::remove_file(&path).or_fault("E-IMPORT", || format!("cannot remove {}", path.display()))
}

fn put(
    image: &FilesystemReader<'_>,
    tree: &mut Tree,
    node: &Node<SquashfsFileReader>,
) -> io::Result<()> {
    let NodeHeader {
        permissions,
        uid,
        gid,
        mtime,
    } = node.header;
    let facts = |kind, length| Facts {
        kind,
        owner: Owner {
            uid,
            gid,
            mode: u32::from(permissions) & 0o7777,
        },
        length,
        modified_s: u64::from(mtime),
        attributes: Vec::new(),
    };
    let nothing = io::empty;
    match &node.inner {
        InnerNode::File(file) => {
            let content = image.file(file).reader();
            let length = file.file_len() as u64;
            tree.put(&node.fullpath, &facts(Kind::File, length), content)
        }
        InnerNode::Symlink(link) => tree.put(
            &node.fullpath,
            &facts(Kind::Symlink(link.link.clone()), 0),
            nothing(),
        ),
        InnerNode::Dir(_) => tree.put(&node.fullpath, &facts(Kind::Directory, 0), nothing()),
        InnerNode::NamedPipe => tree.put(&node.fullpath, &facts(Kind::Fifo, 0), nothing()),
        // As in tarballs: a container's devices come from elsewhere.
        InnerNode::CharacterDevice(_) | InnerNode::BlockDevice(_) | InnerNode::Socket => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::os::unix::fs::MetadataExt;

    use backhand::FilesystemWriter;
    use wire::proto::FileChunk;

    use super::*;

    fn bring_files(files: Vec<Vec<u8>>) -> (tempfile::TempDir, Result<Imported, Fault>) {
        let scratch = tempfile::tempdir().unwrap();
        let rootfs = scratch.path().join("rootfs");
        std::fs::create_dir(&rootfs).unwrap();
        let (feed, mut incoming) = Incoming::new();
        let sender = std::thread::spawn(move || {
            for (index, data) in (0..).zip(files) {
                let _ = feed.blocking_send(Ok(FileChunk { index, data }));
            }
        });
        let result = bring(&mut incoming, scratch.path(), &rootfs);
        drop(incoming);
        sender.join().unwrap();
        (scratch, result)
    }

    fn tarball(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let me = std::fs::metadata("/proc/self").unwrap();
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_uid(me.uid().into());
            header.set_gid(me.gid().into());
            builder
                .append_data(&mut header, path, content.as_bytes())
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn squashfs_image() -> Vec<u8> {
        let me = std::fs::metadata("/proc/self").unwrap();
        let header = NodeHeader::new(0o755, me.uid(), me.gid(), 1_000_000);
        let mut writer = FilesystemWriter::default();
        writer.set_root_uid(me.uid());
        writer.set_root_gid(me.gid());
        writer.push_dir("etc", header).unwrap();
        writer
            .push_file(Cursor::new("from squashfs"), "etc/mark", header)
            .unwrap();
        writer.push_symlink("etc/mark", "link", header).unwrap();
        writer.push_char_device(259, "disk", header).unwrap();
        let mut bytes = Cursor::new(Vec::new());
        writer.write(&mut bytes).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn both_forms_of_the_second_file_and_a_unified_image_work() {
        let metadata = tarball(&[("metadata.yaml", "architecture: x86_64\n")]);
        let text = |scratch: &tempfile::TempDir, path: &str| {
            std::fs::read_to_string(scratch.path().join("rootfs").join(path)).unwrap()
        };
        let (scratch, done) =
            bring_files(vec![metadata.clone(), tarball(&[("etc/mark", "from tar")])]);
        done.unwrap();
        assert_eq!(text(&scratch, "etc/mark"), "from tar");
        let (scratch, done) = bring_files(vec![metadata.clone(), squashfs_image()]);
        done.unwrap();
        assert_eq!(text(&scratch, "link"), "from squashfs");
        assert!(!scratch.path().join("rootfs/disk").exists());
        let unified = tarball(&[("metadata.yaml", ""), ("rootfs/etc/mark", "unified")]);
        let (scratch, done) = bring_files(vec![unified]);
        done.unwrap();
        assert_eq!(text(&scratch, "etc/mark"), "unified");
    }

    #[test]
    fn halves_and_rubbish_are_refused() {
        let metadata = tarball(&[("metadata.yaml", "")]);
        let mut broken = squashfs_image();
        broken.truncate(100);
        for files in [
            vec![metadata.clone()],
            vec![tarball(&[("other", "")]), squashfs_image()],
            vec![metadata.clone(), broken],
            vec![metadata, b"no image".to_vec()],
            vec![],
        ] {
            let (_scratch, done) = bring_files(files);
            assert_eq!(done.unwrap_err().kind(), FaultKind::Invalid);
        }
    }
}
