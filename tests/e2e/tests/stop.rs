//! Exit status and stop: a command's status reaches the client's caller, and a VM that is told to stop does, leaving nothing.
//!
//! Method: commands that end in every way; then stop, kill and stop again. End to end, because a status crosses five processes
//! and a stop is only over when the engine's process is gone.

use std::time::Duration;

use fixture::{Home, Role, walk};

walk!(
    a_command_s_status_is_the_client_s,
    our_own_failures_have_their_own_status,
    stopping_is_polite_and_leaves_nothing,
    stopping_what_is_stopped_is_success,
    a_started_vm_is_started_again_after_a_stop,
    kill_is_not_polite_and_leaves_nothing,
    a_logout_ends_everything,
    shutdown_ends_the_daemon_and_every_vm,
);

/// A polite stop of everything on two busy emulating cores.
const LOGOUT: Duration = Duration::from_secs(60);

const CHILDREN: &[Role] = &[
    Role::Engine,
    Role::Device("vsock"),
    Role::Device("net"),
    Role::Device("block"),
    Role::Device("rng"),
    Role::Passt,
];

fn a_command_s_status_is_the_client_s(home: &mut Home) {
    for status in [0, 1, 42, 124, 255] {
        let _ = home.shell(&format!("exit {status}")).code(status);
    }
    let _ = home.shell("kill -TERM $$").code(128 + 15);
    let _ = home.shell("kill -KILL $$").code(128 + 9);
}

fn our_own_failures_have_their_own_status(home: &mut Home) {
    let _ = home
        .testudo(&["run", "--", "no-such-command"])
        .code(127)
        .says(&["error:", "no-such-command"]);
    let _ = home
        .testudo(&["run", "--", "/etc/passwd"])
        .code(126)
        .says(&["error:", "/etc/passwd"]);
    let _ = home
        .run("vsh", &["termina", "nobody", "--", "true"])
        .code(125)
        .says(&["error:", "nobody"]);
    let _ = home
        .run("vsh", &["no-such-vm", "--", "true"])
        .code(125)
        .says(&["error:", "no-such-vm"]);
}

fn stopping_is_polite_and_leaves_nothing(home: &mut Home) {
    // The container's own services are asked to stop: this one says so.
    let unit = "[Service]\\nExecStart=/bin/sleep infinity\\nExecStopPost=/bin/sh -c \"date +%%s > /var/polite; sync\"\\n";
    let _ = home.shell(&format!("printf '{unit}' | sudo tee /etc/systemd/system/polite.service >/dev/null; sudo systemctl start polite")).ok();
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    home.assert_gone(CHILDREN);
    assert_eq!(
        home.processes(Role::Concierge).len(),
        1,
        "the daemon outlives its VMs for a while"
    );
    let _ = home.shell("test -s /var/polite").ok();
}

fn stopping_what_is_stopped_is_success(home: &mut Home) {
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    let _ = home
        .run("vmc", &["stop", "no-such-vm"])
        .code(3)
        .says(&["error:", "no-such-vm"]);
}

fn a_started_vm_is_started_again_after_a_stop(home: &mut Home) {
    let first = home
        .shell("cat /proc/sys/kernel/random/boot_id")
        .ok()
        .text();
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    let second = home
        .shell("cat /proc/sys/kernel/random/boot_id")
        .ok()
        .text();
    assert_ne!(first, second);
}

fn kill_is_not_polite_and_leaves_nothing(home: &mut Home) {
    let _ = home.testudo(&["run", "--", "true"]).ok();
    let _ = home.run("vmc", &["kill", "termina"]).ok();
    home.assert_gone(CHILDREN);
    let _ = home.testudo(&["run", "--", "true"]).ok();
}

fn a_logout_ends_everything(home: &mut Home) {
    let _ = home.shell("echo kept > ~/kept").ok();
    // What logind does with the last session's folder.
    std::fs::remove_dir_all(home.path("run/testudo")).expect("it is ours");
    home.assert_gone_within(LOGOUT, CHILDREN);
    home.assert_gone_within(LOGOUT, &[Role::Concierge]);
    // The end was a polite one: nothing was synced by hand.
    assert_eq!(home.shell("cat ~/kept").ok().text(), "kept");
}

fn shutdown_ends_the_daemon_and_every_vm(home: &mut Home) {
    let _ = home.testudo(&["run", "--", "true"]).ok();
    let _ = home.testudo(&["shutdown"]).ok();
    home.assert_gone(CHILDREN);
    home.assert_gone(&[Role::Concierge]);
    // Nothing to shut down is success, and starts nothing.
    let _ = home.testudo(&["shutdown"]).ok();
    assert!(home.processes(Role::Concierge).is_empty());
}
