//! Containers in the container: podman is installed as a user would and runs an image made from the container's own files.
//!
//! Method: apt-get, `podman import`, `podman run`, rootless and as root. End to end, because nesting needs namespaces, cgroups,
//! FUSE and id ranges to be right in three places.

use fixture::{Home, walk};

walk!(
    podman_is_installed,
    a_rootless_container_runs,
    a_container_of_root_runs,
    limits_of_cgroups_hold
);

/// Packs a shell and its libraries.
const IMAGE: &str = r#"set -e; cd /tmp; rm -rf image; mkdir -p image/bin image/etc
for tool in sh cat id; do file=$(readlink -f $(command -v $tool)); cp $file image/bin/$tool
for library in $(ldd $file | grep -o '/[^ ]*'); do mkdir -p image/$(dirname $library); cp -nL $library image/$library || :; done; done
tar -C image -c . > image.tar"#;

fn podman_is_installed(home: &mut Home) {
    let line = "sudo apt-get update 2>&1 && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends podman crun uidmap slirp4netns fuse-overlayfs 2>&1";
    let _ = home.shell(line).ok();
    let _ = home.shell(IMAGE).ok();
}

fn a_rootless_container_runs(home: &mut Home) {
    let _ = home.shell("podman import /tmp/image.tar small 2>&1").ok();
    let done = home
        .shell("podman run --rm --network none small /bin/sh -c 'id -u; echo works'")
        .ok();
    assert_eq!(done.text(), "0\nworks");
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
