//! Containers in the container: podman is installed as a user would and runs an image made from the container's own files.
//!
//! Method: apt-get, `podman import`, `podman run`, rootless and as root. End to end, because nesting needs namespaces, cgroups,
//! FUSE and id ranges to be right in three places.

use fixture::{Home, walk};

walk!(
    podman_is_installed,
    a_rootless_container_runs,
    it_has_a_network,
    a_container_of_root_runs,
    limits_of_cgroups_hold
);

/// Packs a shell and its libraries.
const IMAGE: &str = r#"set -e; cd /tmp; rm -rf image; mkdir -p image/bin image/etc
for tool in sh cat id; do file=$(readlink -f $(command -v $tool)); cp $file image/bin/$tool
for library in $(ldd $file | grep -o '/[^ ]*'); do mkdir -p image/$(dirname $library); cp -nL $library image/$library || :; done; done
tar -C image -c . > image.tar"#;

/// In parts, since packages take their time to be configured on an emulated processor.
const INSTALL: [&str; 4] = [
    "update",
    "install -y --no-install-recommends crun uidmap passt fuse-overlayfs",
    "install -y --no-install-recommends conmon netavark libgpgme11t64 golang-github-containers-common",
    "install -y --no-install-recommends podman",
];

fn podman_is_installed(home: &mut Home) {
    for line in INSTALL {
        let line = format!(
            "sudo DEBIAN_FRONTEND=noninteractive apt-get {line} -o Dpkg::Options::=--force-unsafe-io 2>&1"
        );
        let _ = home.shell(&line).ok();
    }
    let _ = home.shell(IMAGE).ok();
}

fn a_rootless_container_runs(home: &mut Home) {
    let _ = home.shell("podman import /tmp/image.tar small 2>&1").ok();
    let done = home
        .shell("podman run --rm --network none small /bin/sh -c 'id -u; echo works'")
        .ok();
    assert_eq!(done.text(), "0\nworks");
}

/// A card of its own by pasta, which opens /dev/net/tun as the user.
fn it_has_a_network(home: &mut Home) {
    let done = home.shell("podman run --rm small /bin/cat /proc/net/route /etc/resolv.conf");
    let said = done.ok().text();
    assert!(
        said.contains("eth0") && said.contains("nameserver"),
        "{said}"
    );
}

fn a_container_of_root_runs(home: &mut Home) {
    let _ = home
        .shell("sudo podman import /tmp/image.tar small 2>&1")
        .ok();
    let done = home
        .shell("sudo podman run --rm --network none small /bin/sh -c 'echo works'")
        .ok();
    assert_eq!(done.text(), "works");
}

fn limits_of_cgroups_hold(home: &mut Home) {
    let line =
        "sudo podman run --rm --network none --memory 50m small /bin/cat /sys/fs/cgroup/memory.max";
    assert_eq!(home.shell(line).ok().text(), (50 << 20).to_string());
}
