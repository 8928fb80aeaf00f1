//! From nothing to a prompt: `testudo`, `testudo run`, and what is shown on the way.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use wire::{Fault, Kind};

use crate::desk::Desk;

#[test]
fn everything_that_is_missing_is_made() {
    let desk = Desk::empty();
    let shown = desk.run("testudo", &["run", "--", "echo", "hello"]);
    assert_eq!(shown.to_string(), "hello\n--- exit 0");
    assert_eq!(
        desk.changes(),
        [
            "Vms.Start termina",
            "Containers.Start termina penguin",
            "Containers.Create termina penguin",
            "Containers.Start termina penguin",
            "Vms.Vsock termina"
        ]
    );
}

#[test]
fn what_runs_is_used_as_it_is() {
    let desk = Desk::new();
    assert_eq!(
        desk.run("testudo", &["run", "true"]).to_string(),
        "--- exit 0"
    );
    assert_eq!(
        desk.changes(),
        [
            "Vms.Start termina",
            "Containers.Start termina penguin",
            "Vms.Vsock termina"
        ]
    );
}

#[test]
fn windows_go_to_the_desktop_of_the_command_and_their_want_stops_nothing() {
    let desk = Desk::new();
    let run = || {
        let mut command = desk.command("testudo", &["run", "true"]);
        command
            .env("WAYLAND_DISPLAY", "wayland-7")
            .output()
            .unwrap()
    };
    assert_eq!(run().stderr, b"");
    let offered = format!(
        "Vms.ShowWindows termina {}",
        desk.path("run/wayland-7").display()
    );
    assert_eq!(desk.changes()[1], offered);
    let fault = Fault::new(Kind::Invalid, "E-COMPOSITOR", "cannot show windows").cause("gone");
    desk.daemon()
        .world()
        .refusals
        .insert("Vms.ShowWindows".to_owned(), fault);
    let done = run();
    assert!(done.status.success());
    assert_eq!(done.stderr, b"no windows: cannot show windows: gone\n");
}

#[test]
fn the_bare_command_is_a_shell_and_passes_its_status() {
    let desk = Desk::empty();
    let shown = desk.feed("testudo", &[], b"echo $0; exit 42\n");
    assert_eq!(shown.to_string(), "/bin/sh\n--- exit 42");
}

#[test]
fn a_shell_in_a_container_that_is_named_wrongly_makes_none() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["shell", "penguim"]), @r"
    --- stderr
    error: there is no container penguim (E-CONTAINER-NOTFOUND)
    hint:  did you mean penguin?
    --- exit 125
    ");
    assert!(desk.daemon().world().made.is_empty());
}

#[test]
fn a_failed_start_is_told_with_125() {
    let desk = Desk::empty();
    let fault = Fault::new(
        Kind::Unreachable,
        "E-BOOT-AGENT",
        "the agent did not answer in 10 s",
    )
    .log(vec!["Kernel panic".to_owned()], "/state/console.log");
    desk.daemon()
        .world()
        .refusals
        .insert("Vms.Start".to_owned(), fault);
    insta::assert_snapshot!(desk.run("testudo", &["run", "true"]), @r"
    --- stderr
    error: the agent did not answer in 10 s (E-BOOT-AGENT)
      | Kernel panic
    log:   /state/console.log
    --- exit 125
    ");
}

#[test]
fn stages_are_json_lines_beside_the_commands_output() {
    let desk = Desk::empty();
    let shown = desk.run("testudo", &["run", "--json", "--", "echo", "out"]);
    assert_eq!(shown.text(), "out\n");
    let kernel = r#"{"version":1,"type":"stage","elapsed_us":512000,"name":"kernel"}"#;
    assert!(shown.stderr.lines().any(|line| line == kernel), "{shown}");
    for line in shown.stderr.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn a_warm_start_draws_nothing_on_a_terminal() {
    let desk = Desk::new();
    let mut seen = desk.on_terminal("testudo", &["run", "--", "echo", "hello"]);
    seen.see("hello");
    assert_eq!(seen.rest().trim(), "");
    assert_eq!(seen.end(), 0);
}

#[test]
fn a_slow_start_is_drawn_and_becomes_one_line() {
    let desk = Desk::slow(Duration::from_millis(150));
    let mut seen = desk.on_terminal("testudo", &["run", "--", "echo", "hello"]);
    // Redrawn in place: the cursor goes up and what was there is erased.
    seen.see("  kernel       512 ms\r\n");
    seen.see("\x1b[J");
    seen.see("  container    310 ms\r\n");
    seen.see("\x1b[Jready in ");
    seen.see("disk 12 ms, kernel 512 ms, agent 230 ms, network 15 ms, create 33 ms, container 310 ms, shell ");
    seen.see("hello");
    assert_eq!(seen.end(), 0);
}

#[test]
fn a_slow_start_is_told_in_lines_without_a_terminal() {
    let desk = Desk::slow(Duration::from_millis(150));
    let shown = desk.run("vmc", &["start", "lab", "--no-shell"]);
    let lines = "disk: 12 ms\nkernel: 512 ms\nagent: 230 ms\nnetwork: 15 ms\n";
    assert_eq!(shown.to_string(), format!("--- stderr\n{lines}--- exit 0"));
    let quiet =
        Desk::slow(Duration::from_millis(150)).run("vmc", &["-q", "start", "lab", "--no-shell"]);
    assert_eq!(quiet.to_string(), "--- exit 0");
}

#[test]
fn an_interrupt_ends_a_start() {
    let desk = Desk::slow(Duration::from_secs(20));
    let mut seen = desk.on_terminal("testudo", &[]);
    seen.see("disk");
    seen.type_in("\x03");
    seen.see("interrupted; termina goes on starting; to stop it: vmc stop termina\r\n");
    assert_eq!(seen.end(), 130);
}

#[test]
fn an_interrupted_start_says_so_as_it_was_asked_to() {
    for (option, said) in [
        (
            "--json",
            "{\"version\":1,\"type\":\"note\",\"text\":\"interrupted; lab goes on starting; to stop it: vmc stop lab\"}\n",
        ),
        ("--quiet", ""),
    ] {
        let desk = Desk::slow(Duration::from_secs(20));
        let client = desk
            .command("vmc", &["start", "lab", "--no-shell", option])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while desk.changes() != ["Vms.Start lab"] {
            std::thread::sleep(Duration::from_millis(5));
        }
        kill_process(Pid::from_child(&client), Signal::INT).unwrap();
        let output = client.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().last().unwrap_or_default(), said.trim_end());
        assert_eq!(output.stderr, b"");
    }
}
