//! From nothing to a prompt: `testudo`, `testudo run`, and what is shown on the way.

use crate::desk::Desk;
use wire::{Fault, Kind};

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
    error: there is no container penguim (E-NOT-FOUND)
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
