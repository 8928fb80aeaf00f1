//! A VM that was saved goes on where it was: its programs run on, its clock is right, its disk and network work.
//!
//! Method: a program in the container that counts, a file in memory and a boot's id, before and after the end of all processes.
//! An engine that cannot says so, and its VM is as it was. End to end, because engine, daemons, agent and daemon must each
//! begin anew with what the guest already knows.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use fixture::{Home, Role, walk};

walk!(
    a_vm_is_saved_or_says_that_it_cannot_be,
    it_goes_on_where_it_was,
    its_clock_is_the_hosts_again,
    its_disk_and_network_work,
    what_was_saved_is_used_once,
    a_forced_boot_forgets_it,
    a_daemon_that_dies_meanwhile_changes_nothing,
);

/// That nobody notices.
const TOLERANCE: Duration = Duration::from_millis(50);

const BOOT: &str = "cat /proc/sys/kernel/random/boot_id";

/// Counts, in memory, in the container. Its /dev/shm comes a moment after the first shell.
const COUNT: &str = "set -e; until [ -d /dev/shm ]; do sleep 0.1; done; head -c 3000000 /dev/urandom > /dev/shm/random; sha256sum /dev/shm/random > ~/sum; \
    sha256sum --check --status ~/sum; echo kept > ~/kept; nohup sh -c 'while :; do echo >> /dev/shm/ticks; sleep 0.2; done' > /dev/null 2>&1 &";

/// Whether this machine's engine can.
fn can(home: &Home) -> bool {
    // Of a VM that runs; one that was saved says nothing of its engine.
    let info = home.info();
    info["engine"] == "crosvm" || info["state"] == "saved"
}

fn boot(home: &Home) -> String {
    home.vm_shell(BOOT).ok().text()
}

fn a_vm_is_saved_or_says_that_it_cannot_be(home: &mut Home) {
    let _ = home.run("vmc", &["save", "termina"]).code(3);
    let _ = home.shell(COUNT).ok();
    let before = boot(home);
    std::fs::write(home.path("home/boot"), &before).expect("the folder is ours");
    if can(home) {
        let _ = home.run("vmc", &["save", "termina"]).ok();
        home.assert_gone(&[
            Role::Engine,
            Role::Passt,
            Role::Device("block"),
            Role::Device("vsock"),
        ]);
        assert_eq!(home.info()["state"], "saved");
        let file = home.path("data/testudo/vms/termina/saved/machine");
        let mode = std::fs::metadata(file).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o600, "a guest's memory is its own");
    } else {
        let done = home.run("vmc", &["save", "termina"]);
        assert!(done.code != 0, "{done}");
        let _ = done.says(&["error:", "qemu cannot save", "hint:"]);
        assert_eq!(home.info()["state"], "running");
        assert_eq!(boot(home), before);
    }
}

fn it_goes_on_where_it_was(home: &mut Home) {
    let ticks = "wc -l < /dev/shm/ticks";
    let one: u64 = home.shell(ticks).ok().text().parse().expect("a number");
    let before = std::fs::read_to_string(home.path("home/boot")).expect("it was written");
    assert_eq!(boot(home), before, "it was booted anew");
    let _ = home
        .shell("sha256sum --check --status ~/sum && cat ~/kept")
        .ok();
    let line = format!("until [ $({ticks}) -gt {one} ]; do sleep 0.1; done");
    let _ = home.shell(&line).ok();
    assert_eq!(home.info()["state"], "running");
}

fn its_clock_is_the_hosts_again(home: &mut Home) {
    let now = || {
        SystemTime::UNIX_EPOCH
            .elapsed()
            .expect("it is later than 1970")
    };
    let before = now();
    let text = home.shell("bash -c 'echo $EPOCHREALTIME'").ok().text();
    let time = Duration::from_secs_f64(text.parse().expect("a number of seconds"));
    assert!(
        time + TOLERANCE > before && time < now() + TOLERANCE,
        "{time:?} is not between {before:?} and {:?}",
        now()
    );
}

fn its_disk_and_network_work(home: &mut Home) {
    let _ = home
        .shell("head -c 3000000 /dev/urandom > ~/later; sha256sum ~/later > ~/latersum; sync")
        .ok();
    home.vm_reaches_its_gateway();
    let size = std::fs::metadata(home.path("data/testudo/vms/termina/data.btrfs"))
        .expect("the disk is there")
        .len();
    let size = (size + (2 << 30)).to_string();
    let _ = home.run("vmc", &["resize", "termina", &size]).ok();
    let _ = home.shell("sha256sum --check --status ~/latersum").ok();
}

fn what_was_saved_is_used_once(home: &mut Home) {
    let saved = home.path("data/testudo/vms/termina/saved");
    assert!(!saved.exists(), "it would not fit the disk any more");
    let before = boot(home);
    home.kill_everything();
    assert_ne!(boot(home), before);
    let _ = home
        .shell("sha256sum --check --status ~/latersum && cat ~/kept")
        .ok();
}

fn a_forced_boot_forgets_it(home: &mut Home) {
    let before = boot(home);
    if !can(home) {
        return;
    }
    let _ = home.run("vmc", &["save", "termina"]).ok();
    // Where it cannot go on, it says so and stays as it is.
    let start = ["start", "--no-shell", "--engine", "qemu", "termina"];
    let done = home.run("vmc", &start);
    assert!(done.code != 0 && done.errors().contains("error:"), "{done}");
    assert_eq!(home.info()["state"], "saved");
    let start = ["start", "--no-shell", "--force-boot", "termina"];
    let _ = home.run("vmc", &start).ok();
    assert_ne!(boot(home), before);
    assert!(!home.path("data/testudo/vms/termina/saved").exists());
}

fn a_daemon_that_dies_meanwhile_changes_nothing(home: &mut Home) {
    let before = boot(home);
    if !can(home) {
        return;
    }
    let _ = home.run("vmc", &["save", "termina"]).ok();
    assert_eq!(home.kill(Role::Concierge), 1);
    assert_eq!(boot(home), before);
}
