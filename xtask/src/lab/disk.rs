//! The lab's disk: a root file system with the product, the image, the tests, and the few programs of this machine that
//! product and tests start, each with the libraries it needs.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Built, Who};
use crate::{build, command, workspace};

/// Programs of this machine: the network's user-mode end, and what walks and fixture start.
const BORROWED: [&str; 8] = [
    "bash", "busybox", "cp", "env", "id", "passt", "setsid", "unshare",
];

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
    borrow(&stage)?;
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

/// Adds programs of this machine with their libraries, each where it is here.
fn borrow(stage: &Path) -> Result<()> {
    let mut files = BTreeSet::new();
    for name in BORROWED {
        let found = command::output(Command::new("sh").args(["-c", &format!("command -v {name}")]))
            .with_context(|| format!("{name} is not installed"))?;
        // /bin is a link to /usr/bin on this machine, and a folder of its own in the lab.
        let program =
            fs::canonicalize(found.trim()).with_context(|| format!("cannot find {name}"))?;
        // A static program has no libraries, which ldd calls a failure.
        let libraries = command::output(Command::new("ldd").arg(&program)).unwrap_or_default();
        files.extend(libraries_in(&libraries));
        files.insert(program);
    }
    for file in files {
        let inside = file
            .strip_prefix("/")
            .context("a program's path is relative")?;
        copy(&file, &stage.join(inside))?;
    }
    Ok(())
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
