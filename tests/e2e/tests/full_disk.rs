//! Full disks, of the host and of the guest: a clear error, nothing half-made with a real name, and recovery once there is room.
//!
//! Method: the daemon's data folder is a small file system in a mount namespace of its own; later the guest's own disk is filled.
//! End to end, because the error is made by the kernel under whichever process writes.

use fixture::{Cell, Home, Role, walk};

walk!(
    a_host_without_room_for_the_disk_is_a_clear_error,
    a_full_guest_disk_is_the_guest_s_own_error_and_is_recovered_from,
    a_host_that_fills_up_under_a_running_vm_loses_nothing_synced,
);

fn with_room(home: &mut Home, bytes: u64) {
    home.start_daemon_in(&Cell {
        small: Some((home.path("data"), bytes)),
        ..Cell::default()
    });
}

fn a_host_without_room_for_the_disk_is_a_clear_error(home: &mut Home) {
    with_room(home, 20 << 20);
    let done = home.testudo(&["run", "--", "true"]).code(125);
    let _ = done.says(&["error:", "hint:"]);
    assert!(home.processes(Role::Engine).is_empty());
    let listed = home.run("vmc", &["list", "--quiet"]).ok().text();
    assert_eq!(listed, "", "half a VM has a name");
    home.shut_down();
}

fn a_full_guest_disk_is_the_guest_s_own_error_and_is_recovered_from(home: &mut Home) {
    let _ = home.run("vmc", &["create", "--size", "2G", "termina"]).ok();
    let done = home.shell("head -c 4G /dev/urandom > ~/fill");
    assert!(
        done.code != 0 && done.errors().contains("No space left"),
        "{done}"
    );
    // A full disk can still be emptied, stopped and started.
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    let _ = home.shell("rm ~/fill && sync && echo room > ~/room").ok();
    assert_eq!(home.shell("cat ~/room").ok().text(), "room");
    home.shut_down();
}

fn a_host_that_fills_up_under_a_running_vm_loses_nothing_synced(home: &mut Home) {
    with_room(home, 700 << 20);
    let _ = home.shell("echo kept > ~/kept; sync").ok();
    // The host's file system fills up; what happens to this write is the guest's business, what was synced is ours.
    let _ = home.shell("timeout 120 head -c 2G /dev/urandom > ~/fill; sync");
    let _ = home.run("vmc", &["kill", "termina"]);
    home.assert_gone(&[Role::Engine]);
    assert_eq!(home.shell("cat ~/kept").ok().text(), "kept");
    home.shut_down();
}
