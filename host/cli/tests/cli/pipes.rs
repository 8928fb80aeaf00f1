//! Sessions without a terminal: bytes, statuses and signals pass unchanged.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::desk::Desk;

fn vsh(desk: &Desk, command: &[&str]) -> crate::desk::Shown {
    desk.run("vsh", &[&["termina", "penguin", "--"], command].concat())
}

#[test]
fn stdout_and_stderr_stay_apart() {
    let desk = Desk::new();
    let shown = vsh(&desk, &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(shown.to_string(), "out\n--- stderr\nerr\n--- exit 3");
}

#[test]
fn a_megabyte_goes_there_and_back_unchanged() {
    let desk = Desk::new();
    let bytes: Vec<u8> = (0..1_048_577_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let shown = desk.feed("vsh", &["termina", "penguin", "--", "cat"], &bytes);
    assert!(
        shown.stdout == bytes,
        "{} bytes came back",
        shown.stdout.len()
    );
    assert_eq!((shown.stderr.as_str(), shown.status), ("", 0));
}

#[test]
fn nothing_that_follows_the_dashes_is_ours() {
    let desk = Desk::new();
    let shown = desk.run(
        "testudo",
        &["run", "--", "echo", "--json", "-q", "--", "-h"],
    );
    assert_eq!(shown.text(), "--json -q -- -h\n");
    let shown = desk.run("testudo", &["exec", "penguin", "echo", "--vm", "x"]);
    assert_eq!(shown.text(), "--vm x\n");
}

#[test]
fn user_folder_and_environment_are_passed_on() {
    let desk = Desk::new();
    let mut command = desk.command(
        "vsh",
        &[
            "termina", "penguin", "-u", "anna", "--cwd", "/", "-e", "A=1 2", "-e", "B", "--", "env",
        ],
    );
    let output = command
        .env("B", "from here")
        .env("LANG", "C.UTF-8")
        .output()
        .unwrap();
    let mut lines: Vec<_> = std::str::from_utf8(&output.stdout)
        .unwrap()
        .lines()
        .collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["A=1 2", "B=from here", "LANG=C.UTF-8", "PATH=/usr/bin:/bin"]
    );
    let setup = desk.vshd.seen().setups.remove(0);
    assert_eq!(
        (setup.user.as_str(), setup.directory.as_str()),
        ("anna", "/")
    );
}

#[test]
fn failures_before_the_command_are_125_to_127() {
    let desk = Desk::new();
    insta::assert_snapshot!(vsh(&desk, &["no-such-command"]), @r"
    --- stderr
    error: cannot run a command in container penguin of termina (E-COMMAND-NOT-FOUND)
    cause: no-such-command was not found
    --- exit 127
    ");
    insta::assert_snapshot!(vsh(&desk, &["/etc/passwd"]), @r"
    --- stderr
    error: cannot run a command in container penguin of termina (E-COMMAND-DENIED)
    cause: /etc/passwd cannot be executed
    --- exit 126
    ");
    insta::assert_snapshot!(desk.run("vsh", &["termina", "pengiun", "--", "true"]), @r"
    --- stderr
    error: there is no container pengiun (E-CONTAINER-NOTFOUND)
    hint:  did you mean penguin?
    --- exit 125
    ");
    insta::assert_snapshot!(desk.run("vsh", &["terminal", "--", "true"]), @r"
    --- stderr
    error: there is no VM terminal (E-VM-NOTFOUND)
    hint:  did you mean termina?
    --- exit 125
    ");
    insta::assert_snapshot!(desk.run("testudo", &["exec", "--vm", "lab", "x", "true"]), @r"
    --- stderr
    error: VM lab does not run (E-NOT-RUNNING)
    hint:  testudo --vm lab start x
    --- exit 125
    ");
}

#[test]
fn a_command_that_a_signal_ended_says_so() {
    let desk = Desk::new();
    assert_eq!(vsh(&desk, &["sh", "-c", "kill -KILL $$"]).status, 137);
}

#[test]
fn signals_reach_the_command() {
    for (signal, number) in [
        (Signal::INT, 2),
        (Signal::TERM, 15),
        (Signal::QUIT, 3),
        (Signal::HUP, 1),
    ] {
        let desk = Desk::new();
        let script = "trap 'echo got; exit 9' INT TERM QUIT HUP; echo ready; while :; do :; done";
        // The loop starts no program: a shell can lose a signal that comes while it does.
        let vsh = desk.path("bin/vsh").display().to_string();
        // The suite itself may have been started with nohup, and with it both the client and the fake vshd's command.
        let client = ["--default-signal", &vsh, "termina", "penguin", "--"];
        let command = ["env", "--default-signal", "bash", "-c", script];
        let line = [&client[..], &command].concat();
        let mut child = desk
            .program("env", &line)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "got");
        assert_eq!(child.wait().unwrap().code(), Some(9));
        assert_eq!(desk.vshd.seen().signals, [number]);
    }
}

#[test]
fn what_nohup_ignores_stays_ignored() {
    let desk = Desk::new();
    let vsh = desk.path("bin/vsh").display().to_string();
    let script = "echo ready; read line; echo $line";
    let line = [
        "--ignore-signal=HUP",
        &vsh,
        "termina",
        "penguin",
        "--",
        "sh",
        "-c",
        script,
    ];
    let mut child = desk
        .program("env", &line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"alive\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "alive");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(desk.vshd.seen().signals, [0_u32; 0]);
}

#[test]
fn the_third_signal_leaves_a_command_that_ignores_them() {
    let desk = Desk::new();
    let script = "trap '' INT; echo ready; sleep 20";
    let mut child = desk
        .command("vsh", &["termina", "penguin", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    for count in 1..=3 {
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        // Two of the same signal that are not yet handled become one.
        let seen = || desk.vshd.seen().signals.len() >= count;
        while count < 3 && !seen() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let desk = Desk::new();
    let mut child = desk
        .command("vsh", &["termina", "penguin", "--", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 4];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let shown = crate::desk::Shown::from(child.wait_with_output().unwrap());
    assert_eq!(shown.to_string(), "--- exit 141");
}

#[test]
fn lists_end_quietly_too() {
    let desk = Desk::new();
    desk.daemon().world().log = vec![b'x'; 4 << 20];
    let mut child = desk
        .command("vmc", &["logs", "lab"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let shown = crate::desk::Shown::from(child.wait_with_output().unwrap());
    assert_eq!(shown.to_string(), "--- exit 141");
}

#[test]
fn a_command_may_end_before_its_input_does() {
    let desk = Desk::new();
    let shown = desk.feed(
        "vsh",
        &["termina", "penguin", "--", "true"],
        &vec![b'x'; 4 << 20],
    );
    assert_eq!(shown.to_string(), "--- exit 0");
}

#[test]
fn vsh_starts_what_it_is_to_enter() {
    let desk = Desk::new();
    // The fake vshd knows penguin only; what was asked of the daemon is what counts.
    let _ = desk.run("vsh", &["termina", "dev", "--", "true"]);
    assert_eq!(desk.run("vsh", &["lab", "--", "true"]).status, 0);
    assert_eq!(
        desk.changes(),
        [
            "Vms.Start termina",
            "Containers.Start termina dev",
            "Vms.Vsock termina",
            "Vms.Start lab",
            "Vms.Vsock lab"
        ]
    );
}

#[test]
fn an_unknown_option_before_the_command_is_a_usage_error_of_ours() {
    let desk = Desk::new();
    for words in [
        &["run", "--nonsense"][..],
        &["exec", "penguin", "--nonsense"],
    ] {
        assert_eq!(desk.run("testudo", words).status, 125, "{words:?}");
    }
    // What follows the command is the command's.
    let shown = desk.run("testudo", &["run", "printf", "%s", "--json"]);
    assert_eq!(shown.to_string(), "--json--- exit 0");
}
