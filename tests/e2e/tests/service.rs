//! The daemon as a service: started by systemd's socket with the first client, kept by a running VM, ended by idleness.
//!
//! Method: `systemd-socket-activate`, which listens and starts a service as the manager does, without needing one. End to end,
//! because the daemon, its clients and the socket's owner have to agree on who removes what.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fixture::{Home, Role, walk};

walk!(
    a_client_at_systemd_s_socket_starts_the_daemon,
    a_running_vm_keeps_the_daemon,
    an_idle_daemon_ends_and_leaves_systemd_s_socket,
    a_daemon_that_a_client_started_ends_when_idle_too,
);

/// Seconds without clients and VMs after which the daemon is to end.
const IDLE: u64 = 1;

/// Several times [`IDLE`].
const A_WHILE: Duration = Duration::from_secs(5);

/// What systemd gives a user's services of their environment, and these tests change.
const VARIABLES: [&str; 4] = [
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
];

/// Where clients look for the daemon.
const SOCKET: &str = "run/testudo/concierge.sock";

/// Has systemd's program listen in the daemon's place, which it becomes with the first client.
fn listen(home: &Home) -> Child {
    home.configure(&format!(
        "image = {:?}\nidle_seconds = {IDLE}\n",
        home.image().to_str().expect("the image's path is text")
    ));
    let mut command = Command::new("systemd-socket-activate");
    home.environment(&mut command);
    for variable in VARIABLES {
        command.args(["--setenv", variable]);
    }
    command.arg("--listen").arg(home.path(SOCKET));
    command.arg(home.programs().join("concierge"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let activator = command.spawn().expect("systemd is installed");
    while !home.path(SOCKET).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    activator
}

/// Returns the number of the one daemon.
fn daemon(home: &Home) -> i32 {
    let daemons = home.processes(Role::Concierge);
    assert_eq!(daemons.len(), 1, "{daemons:?}");
    daemons[0].pid
}

fn a_client_at_systemd_s_socket_starts_the_daemon(home: &mut Home) {
    std::fs::create_dir_all(home.path("run/testudo")).expect("the folder is ours");
    let activator = listen(home);
    assert!(home.processes(Role::Concierge).is_empty());
    assert_eq!(home.shell("hostname").ok().text(), "penguin");
    assert_eq!(
        daemon(home),
        i32::try_from(activator.id()).expect("Linux's identifiers fit")
    );
}

fn a_running_vm_keeps_the_daemon(home: &mut Home) {
    let before = daemon(home);
    std::thread::sleep(A_WHILE);
    assert_eq!(daemon(home), before);
    assert_eq!(home.processes(Role::Engine).len(), 1);
}

fn an_idle_daemon_ends_and_leaves_systemd_s_socket(home: &mut Home) {
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    home.assert_gone(&[Role::Concierge]);
    // It is the manager's, which goes on listening.
    assert!(home.path(SOCKET).exists());
}

fn a_daemon_that_a_client_started_ends_when_idle_too(home: &mut Home) {
    // Nobody listens there any more, as where the manager was killed.
    assert_eq!(home.shell("hostname").ok().text(), "penguin");
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    home.assert_gone(&[Role::Concierge]);
    assert!(!home.path(SOCKET).exists());
}
