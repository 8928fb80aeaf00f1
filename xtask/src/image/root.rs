//! Termina's read-only root: packages thinned by image/termina/root.list, the files of
//! image/termina/root laid over them, busybox's commands, mount points; then, in a second step that
//! takes a moment, maitred and sommelier, packed as erofs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::EPOCH;
use super::apt::{Apt, Package};
use super::list::List;
use super::store::Work;
use super::thin::thin;
use super::tools::Tools;
use super::tree::{Kind, Tree};
use crate::command;

/// Folders that something is mounted on, or that maitred fills at boot.
const MOUNT_POINTS: [&str; 9] = [
    "data",
    "dev",
    "mnt",
    "opt/testudo/bin",
    "proc",
    "root",
    "run",
    "sys",
    "var",
];

/// Links that the root needs though no package has them. maitred answers to `incus` and `lxc` too: it
/// brings the extras image when someone first types them.
const LINKS: [(&str, &str); 7] = [
    ("etc/mtab", "/proc/self/mounts"),
    ("etc/os-release", "../usr/lib/os-release"),
    ("etc/resolv.conf", "/run/testudo/resolv.conf"),
    ("usr/bin/incus", "../sbin/maitred"),
    ("usr/bin/lxc", "../sbin/maitred"),
    ("usr/bin/sh", "bash"),
    ("usr/sbin/init", "maitred"),
];

/// Where maitred lies.
const MAITRED: &str = "usr/sbin/maitred";

/// How the root is packed: not at all. Unpacking costs an emulated machine more time than reading
/// costs it, and the host's page cache holds the file but once (image/termina/README.md).
pub(super) const COMPRESSION: Option<&str> = None;

/// Where sommelier lies; containers see this folder too.
const SOMMELIER: &str = "opt/testudo/bin/sommelier";

/// What a tree is drawn from.
pub(super) struct Source<'a> {
    /// Where packages come from.
    pub(super) apt: &'a Apt,
    /// The packages.
    pub(super) packages: &'a [Package],
    /// Which of their files stay.
    pub(super) list: &'a List,
    /// The tree that the drawn one will be laid over.
    pub(super) below: &'a Tree,
}

/// Returns the tree of the source's packages that its list keeps.
///
/// # Errors
/// When a package cannot be had or read, or something kept lacks what it needs.
pub(super) fn draw(source: &Source<'_>, work: &Work<'_>) -> Result<Tree> {
    let mut full = Tree::default();
    for deb in source.apt.fetch(source.packages, work.log, work.step)? {
        full.add_deb(&deb)?;
    }
    thin(&full, source.list, source.below)
}

/// Completes a thinned tree to Termina's root without maitred: what only Termina has, `overlay`
/// (image/termina/root) among it.
///
/// # Errors
/// When `overlay` cannot be read or busybox does not say its commands.
pub(super) fn furnish(tree: &mut Tree, overlay: &Path, work: &Work<'_>) -> Result<()> {
    tree.add_folder(overlay)?;
    for folder in MOUNT_POINTS {
        tree.put(folder, 0o755, Kind::Folder);
    }
    tree.put("tmp", 0o1777, Kind::Folder);
    for (path, target) in LINKS {
        tree.put(path, 0o777, Kind::Link(target.to_owned()));
    }
    for applet in applets(tree, work)? {
        for folder in ["usr/bin", "usr/sbin"] {
            if tree.0.contains_key(&format!("{folder}/{applet}")) {
                break;
            }
            if folder == "usr/sbin" {
                tree.put(
                    &format!("usr/bin/{applet}"),
                    0o777,
                    Kind::Link("busybox".to_owned()),
                );
            }
        }
    }
    Ok(())
}

/// Asks the tree's own busybox (a static binary) which commands it has.
fn applets(tree: &Tree, work: &Work<'_>) -> Result<BTreeSet<String>> {
    use std::os::unix::fs::PermissionsExt as _;
    let content = tree
        .content("usr/bin/busybox")
        .context("the root has no busybox")?;
    let program = work.folder.join("busybox");
    fs::write(&program, content).context("cannot write busybox")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .context("cannot make busybox executable")?;
    let answer = command::output(Command::new(&program).arg("--list"))?;
    fs::remove_file(&program).context("cannot remove busybox")?;
    Ok(answer
        .lines()
        .map(str::to_owned)
        .filter(|name| name != "busybox" && name != "init")
        .collect())
}

/// Adds the static programs: maitred, and sommelier under its two names.
///
/// # Errors
/// When one cannot be read.
pub(super) fn add_programs(tree: &mut Tree, maitred: &Path, sommelier: &Path) -> Result<()> {
    for (path, program) in [(MAITRED, maitred), (SOMMELIER, sommelier)] {
        let bytes =
            fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        tree.put(path, 0o755, Kind::File(bytes));
    }
    tree.put(
        &format!("{SOMMELIER}ctl"),
        0o777,
        Kind::Link("sommelier".to_owned()),
    );
    Ok(())
}

/// Writes the tree as a tar file.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write_tar(tree: &Tree, path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    tree.write_tar(std::io::BufWriter::new(file))
}

/// Reads a tree back from its tar file.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn read_tar(path: &Path) -> Result<Tree> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut tree = Tree::default();
    tree.add_tar(std::io::BufReader::new(file))?;
    Ok(tree)
}

/// How a tree becomes an erofs image.
pub(super) struct Packing<'a> {
    /// The image's file name.
    pub(super) name: &'a str,
    /// mkfs.erofs's word for the compression, if any.
    pub(super) compression: Option<&'a str>,
}

/// Packs `tree` as an erofs image in the work's folder, the same bytes for the same tree.
///
/// # Errors
/// When mkfs.erofs fails.
pub(super) fn pack(
    tree: &Tree,
    packing: &Packing<'_>,
    tools: &Tools,
    work: &Work<'_>,
) -> Result<()> {
    let tar = work.folder.join("tree.tar");
    write_tar(tree, &tar)?;
    let mut mkfs = tools.command("mkfs.erofs");
    // Its UUID would be made up anew every time otherwise.
    mkfs.arg(format!("-T{EPOCH}"))
        .args(["-U", "00000000-0000-0000-0000-000000000000", "--quiet"]);
    mkfs.args(
        packing
            .compression
            .map(|algorithm| format!("-z{algorithm}")),
    );
    mkfs.arg("--tar=f")
        .arg(work.folder.join(packing.name))
        .arg(&tar);
    command::run(&mut mkfs, work.log, work.step)?;
    fs::remove_file(&tar).context("cannot remove the tar")
}
