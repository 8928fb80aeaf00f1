//! The restricted prompt: what it offers, what it refuses, and that it stays what it is.

use crate::desk::Desk;

#[test]
fn one_command_with_its_status() {
    let desk = Desk::new();
    let words = [
        "--",
        "vsh",
        "termina",
        "penguin",
        "--",
        "sh",
        "-c",
        "echo hi; exit 9",
    ];
    assert_eq!(desk.run("crosh", &words).to_string(), "hi\n--- exit 9");
    insta::assert_snapshot!(desk.run("crosh", &["--", "bash"]), @r"
    --- stderr
    error: crosh has no command bash (E-CROSH)
    hint:  did you mean vsh?
    --- exit 2
    ");
    insta::assert_snapshot!(desk.run("crosh", &["--", "vmc", "export", "termina", "/tmp/x"]), @r"
    --- stderr
    error: crosh opens no files of this machine (E-CROSH)
    hint:  use vmc from a shell for that
    --- exit 2
    ");
    insta::assert_snapshot!(desk.run("crosh", &["--", "vmc", "strat"]), @r"
    --- stderr
    error: unrecognized subcommand 'strat'

      tip: some similar subcommands exist: 'create', 'start'

    Usage: vmc [OPTIONS] <COMMAND>

    For more information, try '--help'.
    --- exit 2
    ");
}

#[test]
fn lines_from_a_pipe() {
    let desk = Desk::new();
    let shown = desk.feed("crosh", &["-q"], b"vmc list -q\n\nlist\nsh\nquit\nlist\n");
    assert!(shown.text().starts_with("termina\nlab\nNAME "), "{shown}");
    assert!(
        shown.stderr.contains("error: crosh has no command sh"),
        "{shown}"
    );
    assert_eq!(
        shown.text().matches("NAME").count(),
        1,
        "nothing follows quit: {shown}"
    );
}

#[test]
fn queries_of_the_machine() {
    let desk = Desk::without_daemon();
    let shown = desk.feed("crosh", &[], b"uptime\nfree\nversion\nhelp\n");
    let lines: Vec<_> = shown.text().lines().collect();
    assert!(
        lines[0].starts_with("up ") && lines[0].contains(", load "),
        "{shown}"
    );
    assert!(
        lines[1].starts_with("memory ") && lines[1].contains(" available of "),
        "{shown}"
    );
    assert!(lines[2].starts_with("testudo "), "{shown}");
    assert!(lines[3].starts_with("COMMAND"), "{shown}");
    assert_eq!(shown.status, 0);
}

#[test]
fn the_prompt_completes_and_remembers() {
    let desk = Desk::new();
    let mut prompt = desk.on_terminal("crosh", &[]);
    prompt.see("crosh> ");
    prompt.type_in("vsh ter\t pen\t -- echo 'a  b'\r");
    prompt.see("vsh termina");
    prompt.see("vsh termina penguin");
    prompt.see("\r\na  b\r\n");
    prompt.see("crosh> ");
    prompt.type_in("exit\r");
    assert_eq!(prompt.end(), 0);
    let history = std::fs::read_to_string(desk.path("state/testudo/crosh_history")).unwrap();
    assert!(
        history.contains("vsh termina penguin -- echo 'a  b'"),
        "{history}"
    );

    let mut again = desk.on_terminal("crosh", &[]);
    again.see("crosh> ");
    again.type_in("\x1b[A\x1b[A\r");
    again.see("\r\na  b\r\n");
    again.see("crosh> ");
    again.type_in("\x04");
    assert_eq!(again.end(), 0);
}

#[test]
fn an_interrupt_ends_the_command_and_not_the_prompt() {
    let desk = Desk::new();
    let mut prompt = desk.on_terminal("crosh", &[]);
    prompt.see("crosh> ");
    prompt.type_in("vsh termina penguin -- sh -c 'echo up; sleep 20'\r");
    prompt.see("up\r\n");
    prompt.type_in("\x03");
    prompt.see("crosh> ");
    prompt.type_in("\x03");
    prompt.see("crosh> ");
    // Nothing of the ended session eats what is typed now.
    prompt.type_in("help\r");
    prompt.see("COMMAND");
    prompt.type_in("exit\r");
    assert_eq!(prompt.end(), 0);
}
