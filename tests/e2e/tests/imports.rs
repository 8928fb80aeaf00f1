//! Containers from elsewhere: a root-file-system tarball, an LXC image pair, an OCI layout as a folder and as an archive.
//!
//! Method: a small system is made from the default container's own files, packed in each form, and made a container again.
//! End to end, because the host passes the bytes on unread and the guest is where they are parsed.

use std::path::{Path, PathBuf};

use fixture::{Home, walk};
use sha2::{Digest, Sha256};

walk!(
    a_root_file_system_tarball_becomes_a_container,
    a_compressed_one_does_too_and_from_a_pipe,
    an_image_pair_becomes_a_container,
    an_oci_layout_becomes_a_container_with_its_whiteouts,
    an_oci_archive_does_too,
    what_docker_saves_does_too,
    a_system_of_busybox_starts_and_stops_as_its_init_does,
    a_system_without_an_init_gets_one,
    rubbish_is_refused_and_leaves_nothing,
    a_tarball_cannot_write_outside_its_container,
    devices_are_left_out,
    a_bomb_is_refused_before_it_is_written,
);

/// Makes a system of a shell and a few tools with their libraries below /tmp/small, and writes it to stdout as a tarball.
const PACK: &str = r#"
set -e; cd /tmp; rm -rf small; mkdir -p small/bin small/sbin small/etc small/proc small/sys small/dev small/run small/tmp small/root
for tool in sh cat ls id hostname sleep stat tar; do
  file=$(command -v $tool); file=$(readlink -f $file); cp $file small/bin/$tool
  for library in $(ldd $file | grep -o '/[^ ]*'); do mkdir -p small/$(dirname $library); cp -nL $library small/$library 2>/dev/null || :; done
done
printf '#!/bin/sh\ntrap "exit 0" TERM PWR INT\nwhile :; do sleep 1; done\n' > small/sbin/init; chmod +x small/sbin/init
printf 'root:x:0:0::/root:/bin/sh\n' > small/etc/passwd; printf 'root:x:0:\n' > small/etc/group
echo 'PRETTY_NAME="Small 1"' > small/etc/os-release; echo from-the-image > small/etc/mark
"#;

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Returns the small system as a tarball, made once.
fn rootfs(home: &Home) -> PathBuf {
    let path = home.path("home/rootfs.tar");
    if !path.exists() {
        let done = home.shell(&format!(
            "{PACK} tar --create --owner=0 --group=0 --directory=small ."
        ));
        std::fs::write(&path, done.ok().stdout).expect("the folder is ours");
    }
    path
}

/// Asserts that the container works as the small system.
fn works(home: &Home, name: &str) {
    let _ = home.testudo(&["start", name]).ok();
    let done = home.testudo(&[
        "exec",
        "--user",
        "root",
        name,
        "--",
        "/bin/sh",
        "-c",
        "cat /etc/mark; hostname; id -u",
    ]);
    assert_eq!(done.ok().text(), format!("from-the-image\n{name}\n0"));
    let _ = home.testudo(&["delete", "--force", "--yes", name]).ok();
}

fn a_root_file_system_tarball_becomes_a_container(home: &mut Home) {
    let _ = home
        .testudo(&["create", "plain", "--from-rootfs", text(&rootfs(home))])
        .ok();
    works(home, "plain");
}

fn a_compressed_one_does_too_and_from_a_pipe(home: &mut Home) {
    let packed = std::process::Command::new("gzip")
        .arg("--to-stdout")
        .arg(rootfs(home))
        .output()
        .expect("gzip is there");
    let _ = home
        .feed(
            "testudo",
            &["create", "piped", "--from-rootfs", "-"],
            &packed.stdout,
        )
        .ok();
    works(home, "piped");
}

fn an_image_pair_becomes_a_container(home: &mut Home) {
    let metadata = "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  description: Small 1\n  os: small\n";
    let path = home.path("home/metadata.tar");
    std::fs::write(home.path("home/metadata.yaml"), metadata).expect("the folder is ours");
    let tar = std::process::Command::new("tar")
        .arg("-C")
        .arg(home.path("home"))
        .arg("-cf")
        .arg(&path)
        .arg("metadata.yaml")
        .status();
    assert!(tar.expect("tar is there").success());
    let _ = home
        .testudo(&[
            "create",
            "pair",
            "--from-image",
            text(&path),
            text(&rootfs(home)),
        ])
        .ok();
    works(home, "pair");
}

/// Adds `bytes` to the layout at `folder` and returns its descriptor.
fn blob(folder: &Path, kind: &str, bytes: &[u8]) -> serde_json::Value {
    let digest: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("the folder is ours");
    std::fs::write(blobs.join(&digest), bytes).expect("the folder is ours");
    serde_json::json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() })
}

/// Makes an OCI layout of two layers (OCI image layout specification 1.1): the system with a mark too many, and one that removes it.
fn layout(home: &Home) -> PathBuf {
    let folder = home.path("home/layout");
    if folder.exists() {
        return folder;
    }
    let shell = |line: &str| {
        let done = std::process::Command::new("sh")
            .arg("-ec")
            .arg(line)
            .current_dir(home.path("home"))
            .status();
        assert!(done.expect("sh is there").success(), "{line}");
    };
    shell(
        "cp rootfs.tar lower.tar; mkdir -p over/etc; echo gone > over/etc/too-much; tar -C over --owner=0 --group=0 -rf lower.tar ./etc/too-much",
    );
    shell(
        "rm over/etc/too-much; : > over/etc/.wh.too-much; tar -C over --owner=0 --group=0 -cf upper.tar etc/.wh.too-much; gzip -9n upper.tar",
    );
    let read = |name: &str| std::fs::read(home.path("home").join(name)).expect("it was made");
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let layers = [
        blob(&folder, layer, &read("lower.tar")),
        blob(&folder, &format!("{layer}+gzip"), &read("upper.tar.gz")),
    ];
    let config = serde_json::json!({ "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/sbin/init"] },
        "rootfs": { "type": "layers", "diff_ids": [] } });
    let config = blob(
        &folder,
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
    let manifest = blob(&folder, kind, manifest.to_string().as_bytes());
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(folder.join("index.json"), index.to_string()).expect("the folder is ours");
    std::fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("the folder is ours");
    folder
}

fn an_oci_layout_becomes_a_container_with_its_whiteouts(home: &mut Home) {
    let _ = rootfs(home);
    let _ = home
        .testudo(&["create", "layers", "--from-oci", text(&layout(home))])
        .ok();
    let _ = home.testudo(&["start", "layers"]).ok();
    let listed = home
        .testudo(&[
            "exec", "--user", "root", "layers", "--", "/bin/ls", "-A", "/etc",
        ])
        .ok()
        .text();
    assert!(
        listed.contains("mark") && !listed.contains("too-much"),
        "{listed}"
    );
    works(home, "layers");
}

fn an_oci_archive_does_too(home: &mut Home) {
    let _ = rootfs(home);
    let archive = home.path("home/layout.tar");
    let tar = std::process::Command::new("tar")
        .arg("-C")
        .arg(layout(home))
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .status();
    assert!(tar.expect("tar is there").success());
    let _ = home
        .testudo(&["create", "archive", "--from-oci", text(&archive)])
        .ok();
    works(home, "archive");
}

/// The form before OCI: a list of layers by path (moby's image specification 1.2).
fn what_docker_saves_does_too(home: &mut Home) {
    let layer = std::fs::read(rootfs(home)).expect("it was made");
    let config = serde_json::json!({ "architecture": "amd64", "os": "linux", "config": { "Env": ["MARK=of-the-image"] },
        "rootfs": { "type": "layers", "diff_ids": [] } });
    let list = serde_json::json!([{ "Config": "c.json", "RepoTags": ["small:1"], "Layers": ["l/layer.tar"] }]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("l/layer.tar", layer),
        ("c.json", config.to_string().into_bytes()),
        ("manifest.json", list.to_string().into_bytes()),
    ] {
        archive
            .append_data(
                &mut header(tar::EntryType::Regular, bytes.len()),
                name,
                &bytes[..],
            )
            .expect("memory takes it");
    }
    let archive = archive.into_inner().expect("memory takes it");
    let _ = home
        .feed("testudo", &["create", "saved", "--from-oci", "-"], &archive)
        .ok();
    let _ = home.testudo(&["start", "saved"]).ok();
    let line = [
        "exec",
        "--user",
        "root",
        "saved",
        "--",
        "/bin/sh",
        "-c",
        "echo $MARK",
    ];
    assert_eq!(home.testudo(&line).ok().text(), "of-the-image");
    works(home, "saved");
}

fn header(kind: tar::EntryType, length: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(length as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header
}

/// Packs the VM's busybox, `files`, and links to it by `names`.
fn busybox(home: &Home, names: &[&str], files: &[(&str, &str)]) -> tar::Builder<Vec<u8>> {
    let program = home
        .run("vsh", &["termina", "--", "cat", "/usr/bin/busybox"])
        .ok()
        .stdout;
    let mut archive = tar::Builder::new(Vec::new());
    let files = files.iter().map(|(name, text)| (*name, text.as_bytes()));
    for (name, bytes) in files.chain([("bin/busybox", &program[..])]) {
        archive
            .append_data(
                &mut header(tar::EntryType::Regular, bytes.len()),
                name,
                bytes,
            )
            .expect("memory takes it");
    }
    for name in names {
        archive
            .append_link(
                &mut header(tar::EntryType::Symlink, 0),
                name,
                "/bin/busybox",
            )
            .expect("memory takes it");
    }
    archive
}

/// No glibc, no systemd, no bash, no sudo: as on Alpine.
fn a_system_of_busybox_starts_and_stops_as_its_init_does(home: &mut Home) {
    let inittab = "::sysinit:/bin/sh -c 'echo up > /run/up'\n::respawn:/bin/sleep 9999\n::shutdown:/bin/sh -c 'echo polite > /left'\n";
    let names = [
        "sbin/init",
        "bin/sh",
        "bin/cat",
        "bin/sleep",
        "bin/id",
        "bin/hostname",
    ];
    let files = [
        ("etc/inittab", inittab),
        ("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
    ];
    let archive = busybox(home, &names, &files)
        .into_inner()
        .expect("memory takes it");
    let _ = home
        .feed(
            "testudo",
            &["create", "tiny", "--from-rootfs", "-"],
            &archive,
        )
        .ok();
    let _ = home.testudo(&["start", "tiny"]).ok();
    let inside = |line: &str| home.testudo(&["exec", "tiny", "--", "/bin/sh", "-c", line]);
    let user = inside("id -u; hostname; cat /run/up /proc/1/comm")
        .ok()
        .text();
    assert_eq!(user, "1000\ntiny\nup\ninit");
    let _ = home.testudo(&["stop", "tiny"]).ok();
    let left = home
        .vm_shell("cat /data/containers/tiny/rootfs/left")
        .ok()
        .text();
    assert_eq!(left, "polite", "its init was not asked but killed");
    let _ = home.testudo(&["delete", "--yes", "tiny"]).ok();
}

fn a_system_without_an_init_gets_one(home: &mut Home) {
    let names = ["bin/sh", "bin/cat", "bin/sleep"];
    let archive = busybox(home, &names, &[])
        .into_inner()
        .expect("memory takes it");
    let _ = home
        .feed(
            "testudo",
            &["create", "bare", "--from-rootfs", "-"],
            &archive,
        )
        .ok();
    let _ = home.testudo(&["start", "bare"]).ok();
    let line = "sleep 9999 & cat /proc/1/comm /proc/1/cmdline";
    let said = home
        .testudo(&["exec", "bare", "--", "/bin/sh", "-c", line])
        .ok()
        .text();
    assert!(said.contains("container-init"), "{said}");
    let _ = home.testudo(&["stop", "bare"]).ok();
    let _ = home.testudo(&["delete", "--yes", "bare"]).ok();
}

fn rubbish_is_refused_and_leaves_nothing(home: &mut Home) {
    let rootfs = std::fs::read(rootfs(home)).expect("it was made");
    let path = home.path("home/rubbish");
    for bytes in [
        &b""[..],
        b"no tar at all",
        &rootfs[..rootfs.len() / 3],
        &[0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff],
    ] {
        std::fs::write(&path, bytes).expect("the folder is ours");
        for option in ["--from-rootfs", "--from-oci"] {
            let done = home.testudo(&["create", "rubbish", option, text(&path)]);
            assert!(
                done.code != 0 && done.errors().contains("error:"),
                "{option} with {} bytes: {done}",
                bytes.len()
            );
        }
    }
    let done = home
        .testudo(&["create", "rubbish", "--from-rootfs", "/no/such/file"])
        .code(3);
    assert!(done.errors().contains("/no/such/file"), "{done}");
    let listed = home.testudo(&["list", "--quiet"]).ok().text();
    assert_eq!(listed, "penguin");
    let left = home.vm_shell("ls -A /data/containers").ok().text();
    assert_eq!(left, "penguin", "half-made containers take no room");
}

fn a_tarball_cannot_write_outside_its_container(home: &mut Home) {
    let make = "cd /tmp; rm -rf evil; mkdir evil; cd evil; ln -s / out; tar -cf ../evil.tar out; rm out; mkdir out; echo evil > out/evil; \
                tar -rf ../evil.tar out/evil; echo evil > /tmp/evil-up; tar -P -rf ../evil.tar ../evil-up /tmp/evil-up; cat ../evil.tar";
    let evil = home.shell(make).ok().stdout;
    // Refused or taken apart safely: both are right, as long as nothing lands in the VM.
    let _ = home.feed("testudo", &["create", "evil", "--from-rootfs", "-"], &evil);
    let _ = home.vm_shell("test ! -e /evil -a ! -e /evil-up -a ! -e /tmp/evil-up -a ! -e /data/evil-up -a ! -e /data/containers/evil-up").ok();
    let _ = home.testudo(&["delete", "--force", "--yes", "evil"]);
}

/// Nodes of the VM's memory and disks, which a container could open if it could have them.
fn devices_are_left_out(home: &mut Home) {
    let mut archive = busybox(home, &["bin/sh"], &[]);
    for (name, kind, major, minor) in [
        ("mem", tar::EntryType::Char, 1, 1),
        ("disk", tar::EntryType::Block, 254, 0),
    ] {
        let mut header = header(kind, 0);
        header.set_path(name).expect("it is short");
        header.set_device_major(major).expect("it is of GNU's form");
        header.set_device_minor(minor).expect("it is of GNU's form");
        header.set_cksum();
        archive
            .append(&header, std::io::empty())
            .expect("memory takes it");
    }
    let archive = archive.into_inner().expect("memory takes it");
    let _ = home
        .feed(
            "testudo",
            &["create", "nodes", "--from-rootfs", "-"],
            &archive,
        )
        .ok();
    let line = "find /data/containers/nodes/rootfs \\( -type b -o -type c \\)";
    assert_eq!(home.vm_shell(line).ok().text(), "");
    let _ = home.testudo(&["delete", "--yes", "nodes"]).ok();
}

/// Half a kilobyte that stands for 32 PiB of zeros.
fn a_bomb_is_refused_before_it_is_written(home: &mut Home) {
    const HUGE: u64 = 1 << 55;
    let mut header = header(tar::EntryType::GNUSparse, 0);
    header.set_path("bomb").expect("it is short");
    let gnu = header.as_gnu_mut().expect("it is of GNU's form");
    gnu.set_real_size(HUGE);
    gnu.sparse[0].set_offset(HUGE);
    gnu.sparse[0].set_length(0);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive
        .append(&header, std::io::empty())
        .expect("memory takes it");
    let archive = archive.into_inner().expect("memory takes it");
    let done = home.feed(
        "testudo",
        &["create", "bomb", "--from-rootfs", "-"],
        &archive,
    );
    assert!(done.code != 0 && done.errors().contains("room"), "{done}");
    let left = home.vm_shell("ls -A /data/containers").ok().text();
    assert_eq!(left, "penguin", "half-made containers take no room");
}
