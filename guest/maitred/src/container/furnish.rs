//! Makes a new root file system a container's own, once, before it first runs: account, name, resolver, time
//! zone. From then on these files are the user's and are not written again.

use std::io;
use std::path::Path;

use wire::proto::User;
use wire::{ContainerName, Fault};

use super::config::Config;
use super::rootfs::{Owner, Rootfs};
use super::user;
use crate::fault::OrFault;
use crate::{configure, network};

const READABLE: Owner = Owner::root(0o644);

/// Furnishes the tree at `rootfs` for container `name`.
pub(super) fn furnish(
    rootfs: &Path,
    name: &ContainerName,
    user: Option<&User>,
) -> Result<Config, Fault> {
    let message = || "cannot write the new container's files".to_owned();
    let rootfs = Rootfs::open(rootfs).or_fault("E-CONTAINER-CREATE", message)?;
    let user = user.map(|user| user::create(&rootfs, user)).transpose()?;
    write(&rootfs, name).or_fault("E-CONTAINER-CREATE", message)?;
    Ok(Config::new(0, user))
}

/// Takes over the tree at `rootfs` of a container that was exported: its files stay the user's.
pub(super) fn adopt(
    rootfs: &Path,
    (old, new): (&ContainerName, &ContainerName),
    user: Option<&User>,
) -> Result<Config, Fault> {
    let message = || "cannot write the new container's files".to_owned();
    let rootfs = Rootfs::open(rootfs).or_fault("E-CONTAINER-CREATE", message)?;
    let user = user.map(|user| user::create(&rootfs, user)).transpose()?;
    rename(&rootfs, old, new).or_fault("E-CONTAINER-CREATE", message)?;
    Ok(Config::new(0, user))
}

fn write(rootfs: &Rootfs, name: &ContainerName) -> io::Result<()> {
    let hostname = format!("{name}\n");
    rootfs.replace(Path::new("etc/hostname"), hostname.as_bytes(), READABLE)?;
    rootfs.replace(Path::new("etc/hosts"), hosts(name).as_bytes(), READABLE)?;
    rootfs.replace(
        Path::new("etc/resolv.conf"),
        resolver().as_bytes(),
        READABLE,
    )?;
    // Every container is its own machine: systemd makes a new number at the first start.
    if rootfs.exists("etc/machine-id") {
        rootfs.replace(Path::new("etc/machine-id"), b"", Owner::root(0o444))?;
    }
    if let Some(zone) = configure::timezone() {
        let file = Path::new("/usr/share/zoneinfo").join(&zone);
        if rootfs.exists(&file) {
            rootfs.replace_link(Path::new("etc/localtime"), &file)?;
            rootfs.replace(
                Path::new("etc/timezone"),
                format!("{zone}\n").as_bytes(),
                READABLE,
            )?;
        }
    }
    for directory in ["proc", "sys", "dev", "run", "tmp"] {
        let mode = if directory == "tmp" { 0o1777 } else { 0o755 };
        rootfs.make_directory(Path::new(directory), Owner::root(mode))?;
    }
    Ok(())
}

/// The resolver is maitred's own on the bridge, which asks the host's: the same whatever network the host joins.
fn resolver() -> String {
    format!("nameserver {}\n", network::BRIDGE_V4.address)
}

fn hosts(name: &ContainerName) -> String {
    format!(
        "127.0.0.1\tlocalhost\n{}::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
        own_line(name)
    )
}

/// The line by which the container knows itself.
fn own_line(name: &ContainerName) -> String {
    format!("127.0.1.1\t{name}\n")
}

/// Changes the container's name in the two files that say it, where they still are as we wrote them.
pub(super) fn rename(rootfs: &Rootfs, old: &ContainerName, new: &ContainerName) -> io::Result<()> {
    rootfs.edit(Path::new("etc/hostname"), READABLE, |bytes| {
        if bytes == format!("{old}\n").as_bytes() {
            format!("{new}\n").into_bytes()
        } else {
            bytes
        }
    })?;
    rootfs.edit(
        Path::new("etc/hosts"),
        READABLE,
        |bytes| match String::from_utf8(bytes) {
            Ok(text) => text.replace(&own_line(old), &own_line(new)).into_bytes(),
            Err(error) => error.into_bytes(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ContainerName {
        name.parse().unwrap()
    }

    #[test]
    fn a_new_container_knows_its_name_and_its_resolver() {
        let folder = tempfile::tempdir().unwrap();
        furnish(folder.path(), &name("penguin"), None).unwrap();
        let text = |path: &str| std::fs::read_to_string(folder.path().join(path)).unwrap();
        assert_eq!(text("etc/hostname"), "penguin\n");
        assert!(text("etc/hosts").contains("127.0.1.1\tpenguin\n"));
        assert_eq!(text("etc/resolv.conf"), "nameserver 100.115.93.1\n");
        assert!(folder.path().join("proc").is_dir());
    }

    #[test]
    fn renaming_changes_only_what_we_wrote() {
        let folder = tempfile::tempdir().unwrap();
        furnish(folder.path(), &name("one"), None).unwrap();
        let rootfs = Rootfs::open(folder.path()).unwrap();
        rename(&rootfs, &name("one"), &name("two")).unwrap();
        let text = |path: &str| std::fs::read_to_string(folder.path().join(path)).unwrap();
        assert_eq!(text("etc/hostname"), "two\n");
        assert!(text("etc/hosts").contains("127.0.1.1\ttwo\n"));
        std::fs::write(folder.path().join("etc/hostname"), "mine.example\n").unwrap();
        rename(&rootfs, &name("two"), &name("three")).unwrap();
        assert_eq!(text("etc/hostname"), "mine.example\n");
    }
}
