//! The default container's root file system: Debian by mmdebstrap, with the machine's mirrors.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::Apt;
use super::list::List;
use super::sources::{SUITE, Sources};
use super::store::Work;
use super::tree::{Kind, Tree};
use super::{EPOCH, root};
use crate::{command, progress};

/// The keyring by its name inside the container.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Units that have no work in a container and would only hold up `running`: consoles that nobody sits
/// at, kernel modules that the guest's kernel does not have, device files that the guest makes.
const MASKED: [&str; 8] = [
    "console-getty.service",
    "container-getty@.service",
    "getty@.service",
    "modprobe@.service",
    "sys-kernel-config.mount",
    "systemd-modules-load.service",
    "systemd-tmpfiles-setup-dev-early.service",
    "systemd-tmpfiles-setup-dev.service",
];

/// Says that /etc and /var are as new as /usr, so that the first boot does not rebuild the linker's
/// cache and the journal's catalogue, which the packages' scripts have made (systemd-update-done(8)).
const UPDATED: [&str; 2] = ["etc/.updated", "var/.updated"];

/// Returns the files that the container has besides its packages'.
pub(super) fn overlay(sources: &Sources) -> Tree {
    let mut tree = Tree::default();
    let file = |text: &str| Kind::File(text.as_bytes().to_vec());
    let mut list = String::new();
    for sentence in sources.out_of_reach() {
        list.push_str(&format!("# When this was made: {sentence}.\n"));
    }
    list.push_str(&sources.deb822(Path::new(KEYRING)));
    tree.put("etc/apt/sources.list.d/debian.sources", 0o644, file(&list));
    let proxy = sources.guest_proxy_conf();
    if !proxy.is_empty() {
        tree.put("etc/apt/apt.conf.d/90host-proxy", 0o644, file(&proxy));
    }
    // Empty, so that systemd makes one for every copy without taking it for a first installation.
    tree.put("etc/machine-id", 0o444, file(""));
    tree.put("etc/hostname", 0o644, file("penguin\n"));
    tree.put("etc/resolv.conf", 0o644, file(""));
    tree.put("opt/testudo", 0o755, Kind::Folder);
    for path in UPDATED {
        tree.put(
            path,
            0o644,
            file(&format!("TIMESTAMP_NSEC={EPOCH}000000000\n")),
        );
    }
    for unit in MASKED {
        let path = format!("etc/systemd/system/{unit}");
        tree.put(&path, 0o777, Kind::Link("/dev/null".to_owned()));
    }
    tree
}

/// Makes `base.tar`: the packages of `list` installed, `overlay` laid over them, drops removed.
///
/// # Errors
/// When mmdebstrap fails.
pub(super) fn debootstrap(
    apt: &Apt,
    sources: &Sources,
    list: &List,
    work: &Work<'_>,
) -> Result<()> {
    for sentence in sources.out_of_reach() {
        progress::line(&format!("note: {sentence}"));
    }
    let sources_file = work.folder.join("sources");
    let overlay_file = work.folder.join("overlay.tar");
    let result = work.folder.join("base.tar");
    fs::write(&sources_file, sources.deb822(apt.keyring())).context("cannot write the sources")?;
    root::write_tar(&overlay(sources), &overlay_file)?;
    let mode = if rustix::process::geteuid().is_root() {
        "root"
    } else {
        "unshare"
    };
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap
        .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
        .args([
            "--variant=essential",
            "--format=tar",
            "--architectures=amd64",
        ])
        .arg(format!("--mode={mode}"))
        .arg(format!("--include={}", list.packages.join(",")));
    for (name, value) in &sources.proxies {
        bootstrap.arg(format!("--aptopt={name} \"{value}\""));
    }
    // mmdebstrap leaves its own copies of sources and options; the overlay has the lasting ones.
    bootstrap
        .arg("--customize-hook=rm -f \"$1\"/etc/apt/sources.list.d/* \"$1\"/etc/apt/sources.list \"$1\"/etc/apt/apt.conf.d/99mmdebstrap")
        .arg(format!("--customize-hook=cd \"$1\" && rm -rf {}", drops(list)))
        .arg(format!("--customize-hook=tar-in {} /", overlay_file.display()))
        .arg(SUITE)
        .arg(&result)
        .arg(&sources_file);
    command::run(&mut bootstrap, work.log, work.step)?;
    for file in [sources_file, overlay_file] {
        fs::remove_file(file).context("cannot remove an input of mmdebstrap")?;
    }
    Ok(())
}

/// Returns the dropped patterns as the shell's, relative to the root.
fn drops(list: &List) -> String {
    let shell: Vec<String> = list
        .drop
        .iter()
        .map(|pattern| pattern.replace("**", "*"))
        .collect();
    shell.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_become_shell_patterns_below_the_root() {
        let list = List::parse("drop /usr/share/doc/**\ndrop /var/log/*\n").unwrap();
        assert_eq!(drops(&list), "usr/share/doc/* var/log/*");
    }

    #[test]
    fn overlay_carries_mirrors_and_reachable_proxies_only() {
        let dump = "Acquire::http::Proxy \"http://127.0.0.1:3142/\";\n";
        let tree = overlay(&Sources::of_mirror("http://m.example/debian", dump));
        let list = tree
            .content("etc/apt/sources.list.d/debian.sources")
            .unwrap();
        let list = String::from_utf8_lossy(list);
        assert!(list.contains("URIs: http://m.example/debian\n"));
        assert!(
            list.contains("# When this was made: Acquire::http::Proxy http://127.0.0.1:3142/ ")
        );
        assert!(tree.content("etc/apt/apt.conf.d/90host-proxy").is_none());
    }
}
