//! A disk's way: made sparse from the template, grown while it runs, given back what is deleted, exported and imported whole.
//!
//! Method: figures from the guest and blocks from the host's file system, before and after. End to end, because the daemon, the
//! block device and the guest's btrfs must agree on every size.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use fixture::{Home, walk};

walk!(
    a_new_disk_is_sparse,
    a_disk_grows_while_it_is_used,
    what_is_deleted_is_given_back_to_the_host,
    a_vm_is_created_with_a_size_listed_and_destroyed,
    an_export_is_imported_under_another_name,
    an_export_streams_through_a_pipe,
    a_damaged_export_is_refused_and_leaves_nothing,
);

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn file(home: &Home, vm: &str) -> PathBuf {
    home.path("data/testudo/vms").join(vm).join("data.btrfs")
}

fn on_host(home: &Home, vm: &str) -> u64 {
    std::fs::metadata(file(home, vm))
        .expect("the disk is there")
        .blocks()
        * 512
}

fn in_guest(home: &Home) -> u64 {
    let text = home
        .vm_shell("df -k /data | awk 'END {print $2}'")
        .ok()
        .text();
    text.parse::<u64>().expect("a number of KiB") * 1024
}

fn a_new_disk_is_sparse(home: &mut Home) {
    let _ = home.testudo(&["run", "--", "true"]).ok();
    let size = std::fs::metadata(file(home, "termina"))
        .expect("the disk is there")
        .len();
    assert!(size >= 4 * GIB, "{size} bytes");
    assert!(
        on_host(home, "termina") < GIB,
        "{} bytes on the host",
        on_host(home, "termina")
    );
    let seen = in_guest(home);
    assert!(
        seen > size * 95 / 100 && seen <= size,
        "{size} bytes given, {seen} seen"
    );
}

fn a_disk_grows_while_it_is_used(home: &mut Home) {
    let before = in_guest(home);
    let _ = home.shell("echo here > ~/before").ok();
    let boot = home
        .vm_shell("cat /proc/sys/kernel/random/boot_id")
        .ok()
        .text();
    let size = std::fs::metadata(file(home, "termina"))
        .expect("the disk is there")
        .len()
        + 2 * GIB;
    let _ = home
        .run("vmc", &["resize", "termina", &size.to_string()])
        .ok();
    let after = in_guest(home);
    assert!(
        after > before + 2 * GIB * 95 / 100,
        "{before} bytes before, {after} after"
    );
    assert_eq!(home.shell("cat ~/before").ok().text(), "here");
    let same = home
        .vm_shell("cat /proc/sys/kernel/random/boot_id")
        .ok()
        .text();
    assert_eq!(same, boot);
    // Smaller would lose data; it is refused, and nothing happens.
    let _ = home
        .run("vmc", &["resize", "termina", "1G"])
        .code(1)
        .says(&["error:"]);
    assert_eq!(
        std::fs::metadata(file(home, "termina"))
            .expect("the disk is there")
            .len(),
        size
    );
}

fn what_is_deleted_is_given_back_to_the_host(home: &mut Home) {
    let _ = home.vm_shell("sync; fstrim /data").ok();
    let empty = on_host(home, "termina");
    let _ = home
        .shell("head -c 200000000 /dev/urandom > ~/large; sync")
        .ok();
    let full = on_host(home, "termina");
    assert!(full > empty + 150 * MIB, "{empty} bytes empty, {full} full");
    let _ = home.shell("rm ~/large; sync").ok();
    let _ = home.vm_shell("sync; fstrim /data; sync").ok();
    let after = on_host(home, "termina");
    assert!(
        after < empty + 50 * MIB,
        "{empty} bytes empty, {full} full, {after} after deletion"
    );
}

fn a_vm_is_created_with_a_size_listed_and_destroyed(home: &mut Home) {
    let _ = home.run("vmc", &["create", "--size", "6G", "other"]).ok();
    let _ = home
        .run("vmc", &["create", "other"])
        .code(4)
        .says(&["error:", "other"]);
    let list = home.run("vmc", &["list", "--quiet"]).ok().text();
    assert_eq!(list, "other\ntermina");
    let info = home.run("vmc", &["info", "--json", "other"]).ok().json();
    assert_eq!(
        (&info["disk_bytes"], &info["state"]),
        (&(6 * GIB).into(), &"stopped".into())
    );
    let _ = home
        .run("vmc", &["destroy", "--force", "--yes", "other"])
        .ok();
    assert!(!home.path("data/testudo/vms/other").exists());
    let _ = home
        .run("vmc", &["destroy", "--force", "--yes", "other"])
        .code(3);
}

fn export(home: &Home) -> PathBuf {
    home.path("home/termina.export")
}

fn an_export_is_imported_under_another_name(home: &mut Home) {
    let _ = home
        .shell("head -c 3000000 /dev/urandom > ~/random; sha256sum random > ~/sum; sync")
        .ok();
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    let file = export(home);
    let file = file.to_str().expect("text");
    let _ = home.run("vmc", &["export", "termina", file]).ok();
    let _ = home.run("vmc", &["export", "termina", file]).code(4);
    let _ = home.run("vmc", &["import", "twin", file]).ok();
    let _ = home.run("vmc", &["import", "twin", file]).code(4);
    let _ = home
        .run(
            "vsh",
            &[
                "twin",
                "penguin",
                "--",
                "sha256sum",
                "--check",
                "--status",
                "sum",
            ],
        )
        .ok();
    // One of them at a time is enough for two cores.
    let _ = home
        .run("vmc", &["destroy", "--force", "--yes", "twin"])
        .ok();
}

fn an_export_streams_through_a_pipe(home: &mut Home) {
    let vmc = home.programs().join("vmc");
    let line = format!(
        "set -o pipefail; {0} export termina - | {0} import piped -",
        vmc.display()
    );
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &line]);
    home.environment(&mut shell);
    let output = shell.output().expect("bash is there");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let _ = home
        .run(
            "vsh",
            &[
                "piped",
                "penguin",
                "--",
                "sha256sum",
                "--check",
                "--status",
                "sum",
            ],
        )
        .ok();
    let _ = home
        .run("vmc", &["destroy", "--force", "--yes", "piped"])
        .ok();
}

fn a_damaged_export_is_refused_and_leaves_nothing(home: &mut Home) {
    let whole = std::fs::read(export(home)).expect("it was written");
    let middle = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[middle] ^= 1;
    let damaged: [(&str, &[u8]); 4] = [
        ("flipped", &flipped),
        ("cut", &whole[..middle]),
        ("empty", b""),
        ("other", b"this is no export at all"),
    ];
    for (name, bytes) in damaged {
        let path = home.path("home").join(name);
        std::fs::write(&path, bytes).expect("the folder is ours");
        let done = home.run("vmc", &["import", "damaged", path.to_str().expect("text")]);
        assert!(
            done.code != 0 && done.errors().contains("error:"),
            "{name}: {done}"
        );
        assert!(
            !home.path("data/testudo/vms/damaged").exists(),
            "{name} left something"
        );
    }
    let left: Vec<_> = std::fs::read_dir(home.path("data/testudo/vms"))
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["termina"], "only the real VM is there");
}
