//! The lab's disk: a root file system with the product, the image, the tests, and the few programs of this machine that
//! product and tests start, each with the libraries it needs.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{BOOT, Built, Who};
use crate::{build, command, workspace};

/// Programs of this machine: the network's user-mode end, and what walks and fixture start.
const BORROWED: [&str; 8] = [
    "bash", "busybox", "cp", "env", "id", "passt", "setsid", "unshare",
];

/// A monitor that ours is measured against, where the product does not find it.
const PEER: &str = "qemu-system-x86_64";

/// What it loads before a kernel.
const FIRMWARE: [&str; 2] = ["qboot.rom", "bios-microvm.bin"];

/// Where its package has that.
const FIRMWARE_FOLDER: &str = "/usr/share/qemu";

/// What concierge wants of an image.
const IMAGE: [&str; 4] = ["vmlinux", "root.erofs", "data.btrfs", "manifest.json"];

/// Room for what is copied in and for the VMs of the walks; it is sparse, and what the lab writes is forgotten.
const SIZE: &str = "8G";

/// Few large files: more room for inodes would only be written.
const INODES: &str = "8192";

/// Folders that are mounted on or written to in the lab.
const FOLDERS: [&str; 8] = ["dev", "etc", "home", "proc", "root", "sys", "tests", "tmp"];

/// The user of the walks, and a resolver that answers nothing.
const FILES: [(&str, &str); 4] = [
    (
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nlab:x:1000:1000::/home:/bin/sh\n",
    ),
    ("etc/group", "root:x:0:\nlab:x:1000:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n"),
    ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
];

/// Puts everything but the image into a folder and returns that.
///
/// # Errors
/// When something cannot be read or there is no room.
pub(super) fn stage(built: &Built) -> Result<PathBuf> {
    let stage = workspace::target()?.join("xtask").join("lab").join("root");
    if stage.exists() {
        fs::remove_dir_all(&stage).context("cannot remove the lab's old files")?;
    }
    for folder in FOLDERS {
        let folder = stage.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::set_permissions(stage.join("tmp"), Permissions::from_mode(0o1777))
        .context("cannot open the lab's temporary folder to all")?;
    for (name, text) in FILES {
        fs::write(stage.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    add_programs(&stage, built)?;
    for name in BORROWED {
        let program = found(name)?;
        borrow(&program, &stage, &program)?;
    }
    if built.tests.iter().any(|test| test.name == BOOT) {
        borrow(&found(PEER)?, &stage, &Path::new("/peers").join(PEER))?;
        for file in FIRMWARE.map(|name| Path::new(FIRMWARE_FOLDER).join(name)) {
            copy(&file, &inside(&stage, &file)?)?;
        }
    }
    Ok(stage)
}

/// Makes the disk from what is in `stage` and the image, and returns its path.
///
/// # Errors
/// When something cannot be read or there is no room.
pub(super) fn make(stage: &Path, image: &Path) -> Result<PathBuf> {
    for part in IMAGE {
        copy(&image.join(part), &stage.join("image").join(part))?;
    }
    let disk = stage.with_file_name("disk");
    let _none_before = fs::remove_file(&disk);
    // Without a journal: nobody reads the disk after a crash.
    let mut make = Command::new("/sbin/mke2fs");
    make.args(["-q", "-t", "ext4", "-O", "^has_journal", "-N", INODES]);
    command::output(make.arg("-d").arg(stage).arg(&disk).arg(SIZE))
        .context("cannot make the lab's disk")?;
    Ok(disk)
}

/// Adds our programs under all their names, the tests, and in which order and as whom the tests run.
fn add_programs(stage: &Path, built: &Built) -> Result<()> {
    let programs = stage.join("programs");
    for name in build::PROGRAMS {
        copy(&built.programs.join(name), &programs.join(name))?;
    }
    for (name, file) in &built.beside {
        copy(file, &programs.join(name))?;
    }
    for name in build::NAMES {
        symlink("testudo", programs.join(name)).with_context(|| format!("cannot name {name}"))?;
    }
    let mut list = String::new();
    for test in &built.tests {
        copy(&test.file, &stage.join("tests").join(&test.name))?;
        let who = match test.who {
            Who::Root => "root",
            Who::User => "user",
        };
        list.push_str(&format!("{who} {}\n", test.name));
    }
    fs::write(stage.join("tests/list"), list).context("cannot write the list of tests")
}

/// Returns where this machine has a program.
fn found(name: &str) -> Result<PathBuf> {
    let found = command::output(Command::new("sh").args(["-c", &format!("command -v {name}")]))
        .with_context(|| format!("{name} is not installed"))?;
    // /bin is a link to /usr/bin on this machine, and a folder of its own in the lab.
    fs::canonicalize(found.trim()).with_context(|| format!("cannot find {name}"))
}

/// Adds a program of this machine as `name`, and its libraries where they are here.
fn borrow(program: &Path, stage: &Path, name: &Path) -> Result<()> {
    copy(program, &inside(stage, name)?)?;
    // A static program has no libraries, which ldd calls a failure.
    let libraries = command::output(Command::new("ldd").arg(program)).unwrap_or_default();
    let libraries: BTreeSet<PathBuf> = libraries_in(&libraries).collect();
    libraries
        .iter()
        .try_for_each(|library| copy(library, &inside(stage, library)?))
}

/// Returns where `file` goes in the lab.
fn inside(stage: &Path, file: &Path) -> Result<PathBuf> {
    let inside = file.strip_prefix("/");
    Ok(stage.join(inside.context("a file's path is relative")?))
}

/// Returns the files that ldd's answer names: after the arrow, or first on the line of the loader.
fn libraries_in(answer: &str) -> impl Iterator<Item = PathBuf> {
    answer
        .split_ascii_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
}

/// Copies what `from` leads to, with its holes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut copy = Command::new("cp");
    copy.args(["--dereference", "--sparse=always", "--reflink=auto"]);
    command::output(copy.arg(from).arg(to)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_the_answer_of_ldd() {
        let answer = "\tlinux-vdso.so.1 (0x00007f3e)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f3e)\n\t/lib64/ld.so.2 (0x00)\n";
        let found: Vec<_> = libraries_in(answer).collect();
        assert_eq!(
            found,
            [Path::new("/lib/libc.so.6"), Path::new("/lib64/ld.so.2")]
        );
    }
}
