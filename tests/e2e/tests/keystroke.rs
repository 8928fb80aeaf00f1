//! A keystroke's way: terminal, vshd, pty in the container, and back; and everything else a shell must carry: size, signals,
//! streams, exit status.
//!
//! Method: the real programs on a real pty, and over pipes. End to end, because each of four processes could buffer, swallow
//! or interpret a byte.

use std::time::Duration;

use fixture::{Home, Role, walk};

walk!(
    bare_testudo_opens_a_shell_and_passes_its_status_on,
    the_window_s_size_reaches_the_program,
    control_c_interrupts_the_command_and_not_the_session,
    control_z_stops_the_command_and_fg_goes_on,
    a_full_screen_program_draws,
    the_terminal_s_type_and_the_user_are_right,
    a_megabyte_of_any_bytes_passes_unchanged,
    stdout_and_stderr_stay_apart,
    end_of_input_reaches_the_command,
    a_command_line_is_never_parsed_again,
    a_reader_that_goes_away_ends_the_command,
    a_killed_client_ends_its_command,
    vsh_reaches_the_vm_and_the_container,
    crosh_offers_our_words_and_no_others,
    whoever_is_in_a_vm_that_is_stopped_is_told,
);

/// More than every buffer on the way together.
const MEGABYTE: usize = 1 << 20;

fn bare_testudo_opens_a_shell_and_passes_its_status_on(home: &mut Home) {
    let mut shell = home.terminal("testudo", &[]);
    shell.see("$");
    shell.type_in("echo $((6*7)); test -t 0 && hostname\n");
    shell.see("42");
    shell.see("penguin");
    shell.type_in("exit 3\n");
    assert_eq!(shell.end(), 3);
}

fn the_window_s_size_reaches_the_program(home: &mut Home) {
    let mut shell = home.terminal("testudo", &[]);
    shell.see("$");
    shell.type_in("stty size\n");
    shell.see("24 80");
    shell.resize(131, 37);
    shell.type_in("stty size\n");
    shell.see("37 131");
    // A program that is already running is told by a signal.
    shell.type_in(
        "sh -c 'trap \"stty size; exit\" WINCH; echo rea''dy; while :; do sleep 0.1; done'\n",
    );
    shell.see("ready");
    shell.resize(90, 25);
    shell.see("25 90");
    shell.type_in("exit\n");
    assert_eq!(shell.end(), 0);
}

fn control_c_interrupts_the_command_and_not_the_session(home: &mut Home) {
    let mut shell = home.terminal("testudo", &[]);
    shell.see("$");
    shell.type_in("echo rea''dy; sleep 1000\n");
    shell.see("ready");
    std::thread::sleep(Duration::from_millis(300));
    shell.type_in("\x03");
    shell.type_in("echo status=$?\n");
    shell.see("status=130");
    // With nothing in between, it ends `run` as it would end the command here.
    let mut run = home.terminal(
        "testudo",
        &["run", "--", "sh", "-c", "echo ready; sleep 1000"],
    );
    run.see("ready");
    run.type_in("\x03");
    assert_eq!(run.end(), 130);
    shell.type_in("exit\n");
    assert_eq!(shell.end(), 0);
}

fn control_z_stops_the_command_and_fg_goes_on(home: &mut Home) {
    let mut shell = home.terminal("testudo", &[]);
    shell.see("$");
    shell.type_in("sh -c 'echo rea''dy; read line; echo got $line'\n");
    shell.see("ready");
    shell.type_in("\x1a");
    shell.see("Stopped");
    shell.type_in("echo between; fg\n");
    shell.see("between\r\n");
    shell.see("read line");
    shell.type_in("words\n");
    shell.see("got words");
    shell.type_in("exit\n");
    assert_eq!(shell.end(), 0);
}

fn a_full_screen_program_draws(home: &mut Home) {
    let mut top = home.terminal("testudo", &["run", "--", "top"]);
    top.see("load average");
    top.see("PID");
    top.type_in("q");
    assert_eq!(top.end(), 0);
    // The editor is told of a larger window and draws its empty lines to the last but one.
    let mut editor = home.terminal("testudo", &["run", "--", "vi", "note"]);
    editor.see("note");
    editor.resize(100, 30);
    editor.see("[29;1H");
    editor.type_in("ihello\x1b:wq\r");
    assert_eq!(editor.end(), 0);
    assert_eq!(home.shell("cat note").ok().text(), "hello");
}

fn the_terminal_s_type_and_the_user_are_right(home: &mut Home) {
    let mut run = home.terminal(
        "testudo",
        &[
            "run",
            "--",
            "sh",
            "-c",
            "echo $TERM $(id -un) $HOME; sudo -n id -u",
        ],
    );
    let user = whoami();
    run.see(&format!("xterm-256color {user} /home/{user}"));
    run.see("0");
    assert_eq!(run.end(), 0);
}

fn a_megabyte_of_any_bytes_passes_unchanged(home: &mut Home) {
    let bytes = any_bytes(MEGABYTE);
    let done = home
        .feed("testudo", &["run", "--quiet", "--", "cat"], &bytes)
        .ok();
    assert!(
        done.stdout == bytes,
        "{} of {} bytes came back, or others",
        done.stdout.len(),
        bytes.len()
    );
    assert_eq!(done.errors(), "");
}

fn stdout_and_stderr_stay_apart(home: &mut Home) {
    // On a busy machine the client would tell the stages of a slow start on its own stderr.
    let line = "echo out; echo err >&2; exit 9";
    let done = home
        .testudo(&["run", "--quiet", "--", "sh", "-c", line])
        .code(9);
    assert_eq!(
        (done.text().as_str(), done.errors().as_str()),
        ("out", "err\n")
    );
}

fn end_of_input_reaches_the_command(home: &mut Home) {
    let done = home
        .feed("testudo", &["run", "--", "wc", "-c"], b"12345")
        .ok();
    assert_eq!(done.text(), "5");
    // No input at all is an end, too.
    assert_eq!(home.testudo(&["run", "--", "wc", "-c"]).ok().text(), "0");
}

fn a_command_line_is_never_parsed_again(home: &mut Home) {
    let words = ["$HOME", "a b", "", "*", "--help", "'\"", "é\u{1f427}"];
    let mut arguments = vec!["run", "--", "printf", "<%s>"];
    arguments.extend(words);
    let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
    assert_eq!(home.testudo(&arguments).ok().text(), expected);
}

fn a_reader_that_goes_away_ends_the_command(home: &mut Home) {
    let testudo = home.programs().join("testudo");
    let line = format!(
        "{} run -- yes | head -n 1; echo ${{PIPESTATUS[0]}}",
        testudo.display()
    );
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &line]);
    home.environment(&mut shell);
    let output = shell.output().expect("bash is there");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("y\n") && said.trim() != "y\n0", "{said}");
    assert_eq!(home.shell("pgrep -x yes || echo none").ok().text(), "none");
}

fn a_killed_client_ends_its_command(home: &mut Home) {
    let mut client = home.background("testudo", &["run", "--", "sleep", "4242"]);
    let runs = || home.shell("pgrep -f '^sleep 4242' | wc -l").ok().text();
    let start = std::time::Instant::now();
    while runs() != "1" {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the command does not start"
        );
    }
    client.kill().expect("it runs");
    client.wait().expect("it is our child");
    while runs() != "0" {
        assert!(
            start.elapsed() < Duration::from_secs(40),
            "the command outlives its client"
        );
    }
}

fn vsh_reaches_the_vm_and_the_container(home: &mut Home) {
    assert_eq!(home.vm_shell("id -u; hostname").ok().text(), "0\ntermina");
    assert_eq!(
        home.run("vsh", &["termina", "penguin", "--", "hostname"])
            .ok()
            .text(),
        "penguin"
    );
    assert_eq!(home.processes(Role::Engine).len(), 1);
}

fn crosh_offers_our_words_and_no_others(home: &mut Home) {
    let mut prompt = home.terminal("crosh", &[]);
    prompt.see("crosh>");
    prompt.type_in("vmc list\r");
    prompt.see("termina");
    prompt.see("crosh>");
    prompt.type_in("cat /etc/passwd\r");
    prompt.see("cat");
    prompt.see("crosh>");
    assert!(!prompt.rest().contains("root:"), "{}", prompt.rest());
    prompt.type_in("vsh termina penguin -- hostname\r");
    prompt.see("penguin\r\n");
    prompt.see("crosh>");
    prompt.type_in("exit\r");
    assert_eq!(prompt.end(), 0);
}

fn whoever_is_in_a_vm_that_is_stopped_is_told(home: &mut Home) {
    let mut inside = home.terminal("vsh", &["termina"]);
    inside.see("#");
    let mut shell = home.terminal("testudo", &[]);
    shell.see("$");
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    inside.see("VM termina was stopped");
    assert_eq!(inside.end(), 125);
    shell.see("VM termina was stopped");
    // The container's end hung its shell up.
    assert_eq!(shell.end(), 128 + 1);
}

fn whoami() -> String {
    let output = std::process::Command::new("id")
        .arg("-un")
        .output()
        .expect("id is there");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Bytes of every value without a pattern that a text filter would leave alone.
fn any_bytes(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}
