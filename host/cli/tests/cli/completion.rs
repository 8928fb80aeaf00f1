//! Shell completion, as shells ask for it.

use crate::desk::Desk;

/// Returns what bash would offer for the last of `words`.
fn offered(desk: &Desk, words: &[&str]) -> Vec<String> {
    let mut command = desk.command(words[0], &[]);
    command
        .arg("--")
        .args(words)
        .env("COMPLETE", "bash")
        .env("_CLAP_IFS", "\n");
    command.env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
    let output = command.output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn verbs_options_and_names_are_offered() {
    let desk = Desk::new();
    assert_eq!(offered(&desk, &["testudo", "sn"]), ["snapshot"]);
    assert_eq!(offered(&desk, &["testudo", "start", "p"]), ["penguin"]);
    assert_eq!(
        offered(&desk, &["vmc", "stop", ""])[..2],
        ["termina", "lab"]
    );
    assert_eq!(offered(&desk, &["vsh", "termina", "d"]), ["dev"]);
    assert!(offered(&desk, &["vmc", "create", "--si"]).contains(&"--size".to_owned()));
}

#[test]
fn nothing_is_started_for_a_completion() {
    let desk = Desk::new();
    offered(&desk, &["testudo", "start", ""]);
    assert_eq!(desk.changes(), [""; 0]);
    let without = Desk::without_daemon();
    assert_eq!(offered(&without, &["testudo", "delete", "p"]), [""; 0]);
    assert!(!without.path("run/testudo/concierge.sock").exists());
    assert!(!without.path("state/testudo").exists());
}

#[test]
fn bash_and_others_get_a_script_for_all_programs() {
    let desk = Desk::without_daemon();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let shown = desk.run("testudo", &["completions", shell]);
        assert_eq!(shown.status, 0);
        for program in ["testudo", "vmc", "vsh", "crosh"] {
            assert!(
                shown.text().contains(program),
                "{shell} does not know {program}"
            );
        }
    }
    let script = desk.run("testudo", &["completions", "zsh"]);
    // The names for which zsh loads the file.
    let first = script.text().lines().next().unwrap();
    assert_eq!(first, "#compdef testudo vmc vsh crosh");
    let script = desk.run("testudo", &["completions", "bash"]);
    std::fs::write(desk.path("work/script"), &script.stdout).unwrap();
    let parsed = std::process::Command::new("bash")
        .arg("-n")
        .arg(desk.path("work/script"))
        .status();
    assert!(parsed.unwrap().success());
}
