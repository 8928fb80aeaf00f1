//! Debian's own cloud kernel of the same suite: the peer that Termina's kernel is measured against, and the host
//! kernel of the lab, with its KVM modules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::apt::{Apt, Package};
use super::key::Key;
use super::lock::bytes_of;
use super::places::Places;
use super::store::{Recipe, Store};
use super::tree::Tree;
use crate::command;

/// The package that depends on the newest cloud kernel.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// What the lab loads, in this order: KVM, and the file system of its disk.
const MODULES: [&str; 3] = ["irqbypass.ko", "kvm.ko", "kvm-amd.ko"];

/// What the peer's /init prints on the console in front of the kernel's uptime in seconds.
pub(crate) const DEBIAN_KERNEL_MARKER: &str = "TESTUDO-INIT ";

/// The first program of the peer: says how long the kernel took and ends the machine.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir /proc
/bin/busybox mount -t proc proc /proc
read up idle < /proc/uptime
echo \"TESTUDO-INIT $up\"
/bin/busybox reboot -f
";

/// The peer and what it boots into.
pub(crate) struct DebianKernel {
    /// A bzImage, for QEMU's `-kernel`. It has drivers for PCI and the first serial port built in.
    pub(crate) kernel: PathBuf,
    /// What makes it the lab's host: modules, uncompressed, in the order in which they are loaded.
    pub(crate) modules: Vec<PathBuf>,
    /// An archive for `-initrd`, whose /init prints [`DEBIAN_KERNEL_MARKER`] and reboots.
    pub(crate) initrd: PathBuf,
}

/// Returns the peer, downloading it the first time.
///
/// # Errors
/// When the mirrors of the last image build cannot be reached.
pub(crate) fn debian_kernel() -> Result<DebianKernel> {
    let places = Places::of_user(None)?;
    let sources = super::sources(None)?;
    let store = Store::open(&places.cache)?;
    let apt = Apt::prepare(&store.shared("apt")?, &sources)?;
    let packages = packages(&apt)?;
    let key = Key::of(&[
        ("packages", &bytes_of(&packages)),
        ("code", include_bytes!("debian_kernel.rs")),
    ]);
    let recipe = Recipe {
        name: "debian-kernel",
        what: "fetching Debian's cloud kernel",
        about: Duration::from_secs(10),
        key,
    };
    let place = store.get(&recipe, |work| {
        let mut tree = Tree::default();
        for deb in apt.fetch(&packages, work.log, work.step)? {
            tree.add_deb(&deb)?;
        }
        let image = tree.0.keys().find(|path| path.starts_with("boot/vmlinuz-"));
        let image = tree
            .content(image.context("the package has no kernel")?)
            .context("no kernel image")?;
        fs::write(work.folder.join("vmlinuz"), image).context("cannot write the kernel")?;
        for module in MODULES {
            write_module(&tree, module, work.folder)?;
        }
        let busybox = tree
            .content("usr/bin/busybox")
            .context("the package has no busybox")?;
        let archive = cpio(&[
            ("bin", 0o040_755, b""),
            ("bin/busybox", 0o100_755, busybox),
            ("init", 0o100_755, INIT.as_bytes()),
        ]);
        fs::write(work.folder.join("initrd"), archive).context("cannot write the initrd")
    })?;
    Ok(DebianKernel {
        kernel: place.join("vmlinuz"),
        modules: MODULES.iter().map(|module| place.join(module)).collect(),
        initrd: place.join("initrd"),
    })
}

/// Writes the module called `name` to `folder`; the package has it compressed.
fn write_module(tree: &Tree, name: &str, folder: &Path) -> Result<()> {
    let end = format!("/{name}.xz");
    let path = tree.0.keys().find(|path| path.ends_with(&end));
    let path = path.with_context(|| format!("the kernel's package has no {name}"))?;
    let packed = folder.join(format!("{name}.xz"));
    let content = tree.content(path).context("the module is not a file")?;
    fs::write(&packed, content).context("cannot write a module")?;
    command::output(Command::new("xz").arg("--decompress").arg(&packed)).map(|_| ())
}

/// Returns the newest cloud kernel and a static busybox, without what they depend on.
fn packages(apt: &Apt) -> Result<Vec<Package>> {
    let closure = apt.resolve(&[PACKAGE.to_owned()])?;
    let kernel = closure
        .iter()
        .find(|package| package.name.starts_with("linux-image-6"));
    let kernel = kernel
        .context("the suite has no cloud kernel")?
        .name
        .clone();
    apt.describe(&[kernel, "busybox-static".to_owned()])
}

/// Returns a cpio archive in the "newc" form that the kernel unpacks
/// (Documentation/driver-api/early-userspace/buffer-format.rst).
pub(crate) fn cpio(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    let trailer: (&str, u32, &[u8]) = ("TRAILER!!!", 0, b"");
    for (inode, (name, mode, content)) in entries.iter().chain([&trailer]).enumerate() {
        let fields = [
            inode,
            *mode as usize,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        archive.extend_from_slice(b"070701");
        archive.extend(
            fields
                .iter()
                .flat_map(|field| format!("{field:08X}").into_bytes()),
        );
        archive.extend_from_slice(name.as_bytes());
        archive.push(0);
        pad(&mut archive);
        archive.extend_from_slice(content);
        pad(&mut archive);
    }
    archive
}

/// Fills up to the next multiple of four bytes.
fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn busybox_unpacks_the_archive() {
        let folder = tempfile::tempdir().unwrap();
        let archive = cpio(&[("bin", 0o040_755, b""), ("bin/x", 0o100_755, b"12345")]);
        let mut unpack = Command::new("busybox")
            .args(["cpio", "-i"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        unpack.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(unpack.wait().unwrap().success());
        assert_eq!(
            fs::read_to_string(folder.path().join("bin/x")).unwrap(),
            "12345"
        );
    }

    #[test]
    fn init_prints_the_marker() {
        assert!(INIT.contains(DEBIAN_KERNEL_MARKER));
    }
}
