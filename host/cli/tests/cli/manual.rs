//! Help and manual pages, which need no daemon.

use crate::desk::Desk;

#[test]
fn every_verb_has_help_with_a_first_line() {
    let desk = Desk::without_daemon();
    for program in ["testudo", "vmc"] {
        let help = desk.run(program, &["--help"]);
        let verbs = help
            .text()
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1);
        let verbs: Vec<_> = verbs
            .take_while(|line| !line.is_empty())
            .map(|line| line.split_whitespace().next().unwrap().to_owned())
            .collect();
        assert!(verbs.len() > 10, "{help}");
        for verb in verbs.iter().filter(|verb| *verb != "help") {
            let shown = desk.run(program, &[verb, "--help"]);
            assert_eq!(shown.status, 0, "{program} {verb}: {shown}");
            assert!(
                shown.text().contains("Usage: "),
                "{program} {verb}: {shown}"
            );
        }
    }
}

#[test]
fn pages_are_written_for_programs_and_verbs() {
    let desk = Desk::without_daemon();
    let shown = desk.run("testudo", &["man", "pages"]);
    assert_eq!(shown.to_string(), "--- exit 0");
    for page in [
        "testudo.1",
        "testudo-run.1",
        "testudo-snapshot-create.1",
        "vmc-start.1",
        "vsh.1",
        "crosh.1",
    ] {
        let text = std::fs::read_to_string(desk.path("work/pages").join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(!desk.path("work/pages/testudo-man.1").exists());
}

#[test]
fn versions_without_and_with_a_daemon() {
    insta::assert_snapshot!(Desk::without_daemon().run("testudo", &["version"]), @r"
    testudo 0.1.0 (wire 1)
    --- stderr
    the daemon does not run
    --- exit 0
    ");
    insta::assert_snapshot!(Desk::new().run("testudo", &["version"]), @r"
    testudo 0.1.0 (wire 1)
    concierge 0.1.0 (wire 1, build fake, process 1)
    --- exit 0
    ");
    insta::assert_snapshot!(Desk::new().run("vsh", &["--version"]), @r"
    vsh 0.1.0
    --- exit 0
    ");
}

#[test]
fn shutdown_ends_what_runs_and_accepts_what_does_not() {
    insta::assert_snapshot!(Desk::without_daemon().run("testudo", &["shutdown"]), @r"
    --- stderr
    the daemon does not run
    --- exit 0
    ");
    let desk = Desk::new();
    assert_eq!(desk.run("testudo", &["shutdown"]).to_string(), "--- exit 0");
    assert_eq!(desk.changes(), ["Daemon.Shutdown"]);
}
