//! The disk that every VM's data disk begins as: btrfs with the default container in a subvolume, so
//! that creating the container in the guest is a snapshot.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::store::Work;
use super::tools::Tools;
use super::{EPOCH, namespace};
use crate::command;

/// Room that mkfs.btrfs gets; it cuts the file to what it used, and a VM's disk is grown from there.
const DISK_BYTES: u64 = 4 << 30;

/// Makes `data.btrfs`, the template of every VM's data disk, out of `base` (a base.tar).
///
/// # Errors
/// When unpacking or mkfs.btrfs fails.
pub(super) fn make(base: &Path, tools: &Tools, work: &Work<'_>) -> Result<()> {
    let image = work.folder.join("data.btrfs");
    let file = File::create(&image).context("cannot make the disk's file")?;
    file.set_len(DISK_BYTES)
        .context("cannot size the disk's file")?;
    let tree = work.folder.join("tree");
    let folder = tree.display().to_string();
    // What an interrupted run left belongs to other users when this one is not root.
    let clean = || namespace::shell("rm -rf \"$1\"", &[&folder]);
    command::run(&mut clean(), work.log, work.step)?;
    // The folders of the disk; device files come from the guest's own /dev.
    let script = "umask 022
        mkdir -p \"$1\"/base/debian-trixie \"$1\"/containers \"$1\"/images \"$1\"/extras
        tar --extract --file \"$2\" --directory \"$1\"/base/debian-trixie --numeric-owner --xattrs --xattrs-include='*' --exclude './dev/*'
        find \"$1\" -maxdepth 2 -exec touch --no-dereference --date \"@$4\" '{}' ';'
        image=$3; shift 4; exec \"$@\" --rootdir \"$FOLDER\" \"$image\"";
    let (base, shown, epoch) = (
        base.display().to_string(),
        image.display().to_string(),
        EPOCH.to_string(),
    );
    let mkfs: Vec<String> = tools
        .words("mkfs.btrfs")
        .into_iter()
        .chain(OPTIONS.map(str::to_owned))
        .collect();
    let mut arguments = vec![folder.as_str(), &base, &shown, &epoch];
    arguments.extend(mkfs.iter().map(String::as_str));
    command::run(
        namespace::shell(script, &arguments).env("FOLDER", &folder),
        work.log,
        work.step,
    )?;
    command::run(&mut clean(), work.log, work.step)
}

/// How the data disk is made. One copy of metadata: the disk is one file on the host, and the host
/// keeps it; block-group-tree mounts grown disks fast. Simple quotas are turned on by maitred: made by mkfs they lack the
/// base subvolume's group, and the first extent freed in it aborts the transaction (ENOENT, Linux 6.12).
const OPTIONS: [&str; 10] = [
    "--quiet",
    "--label=testudo-data",
    "--metadata=single",
    "--features=block-group-tree",
    "--nodesize=16384",
    "--uuid=7e57d000-da7a-4000-8000-000000000000",
    "--device-uuid=7e57d000-da7a-4000-8000-000000000001",
    "--subvol=base/debian-trixie",
    "--shrink",
    "--force",
];
