//! LXD's command line on demand: typed in the VM's shell, the daemon comes, makes containers from images, and they survive a
//! restart of the VM. Who never types it pays nothing.
//!
//! Method: the names `incus` and `lxc` in a Termina shell; the image is made from the default container's own base. End to end,
//! because the extra image travels from the host, is checked, mounted and started only then.

use fixture::{Home, walk};

walk!(
    nobody_pays_who_does_not_use_it,
    the_first_call_brings_it,
    an_imported_image_is_launched,
    the_name_that_people_know_works_too,
    containers_survive_a_restart_of_the_vm,
    the_default_container_is_untouched,
);

/// Packs a system that stays up, with the metadata that the daemon wants.
const IMAGE: &str = r#"set -e; cd /data; rm -rf small; mkdir -p small/rootfs; cd small
for folder in bin sbin etc proc sys dev run tmp root; do mkdir -p rootfs/$folder; done
for tool in sh cat hostname sleep; do file=$(readlink -f $(command -v $tool)); cp $file rootfs/bin/$tool
for library in $(ldd $file | grep -o '/[^ ]*'); do mkdir -p rootfs/$(dirname $library); cp -L $library rootfs/$library || :; done; done
printf '#!/bin/sh\ntrap "exit 0" TERM PWR INT\nwhile :; do sleep 1; done\n' > rootfs/sbin/init; chmod +x rootfs/sbin/init
printf 'root:x:0:0::/root:/bin/sh\n' > rootfs/etc/passwd
printf 'architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  description: small\n' > metadata.yaml
tar -c metadata.yaml rootfs > /data/small.tar; cd /; rm -rf /data/small"#;

fn nobody_pays_who_does_not_use_it(home: &mut Home) {
    let _ = home.testudo(&["run", "--", "true"]).ok();
    let _ = home
        .vm_shell("! pgrep incusd && ! grep incus /proc/mounts")
        .ok();
    let _ = home.vm_shell("test ! -e /data/extras/incus.erofs").ok();
}

fn the_first_call_brings_it(home: &mut Home) {
    let done = home.vm_shell("incus list --format csv").ok();
    assert_eq!(done.text(), "");
}

fn an_imported_image_is_launched(home: &mut Home) {
    let _ = home.vm_shell(IMAGE).ok();
    let _ = home
        .vm_shell("incus image import /data/small.tar --alias small")
        .ok();
    let _ = home.vm_shell("incus launch small first < /dev/null").ok();
    assert_eq!(
        home.vm_shell("incus exec first -- hostname").ok().text(),
        "first"
    );
}

fn the_name_that_people_know_works_too(home: &mut Home) {
    let listed = home
        .vm_shell("lxc list --format csv --columns ns")
        .ok()
        .text();
    assert_eq!(listed, "first,RUNNING");
}

fn containers_survive_a_restart_of_the_vm(home: &mut Home) {
    let _ = home
        .vm_shell("incus exec first -- sh -c 'echo kept > /root/kept'; sync")
        .ok();
    assert_eq!(
        home.vm_shell("incus remote list --format csv | cut -d, -f1 | sort")
            .ok()
            .text(),
        "images\nlocal (current)"
    );
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    let _ = home.run("vmc", &["start", "--no-shell", "termina"]).ok();
    // Nobody has typed the name in this boot: nothing of it runs.
    let _ = home
        .vm_shell("! pgrep incusd && ! grep incus /proc/mounts")
        .ok();
    // It ran when the machine was switched off, so it runs when the daemon is there again.
    let line = "incus exec first -- cat /root/kept";
    assert_eq!(home.vm_shell(line).ok().text(), "kept");
}

fn the_default_container_is_untouched(home: &mut Home) {
    assert_eq!(home.shell("hostname").ok().text(), "penguin");
    let _ = home.vm_shell("incus delete --force first").ok();
}
