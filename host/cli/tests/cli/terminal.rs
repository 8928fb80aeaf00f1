//! Sessions on a terminal: a real pty on this side, a real pty behind the fake vshd.

use crate::desk::Desk;

#[test]
fn the_process_has_a_terminal_of_the_same_size() {
    let desk = Desk::new();
    let mut shell = desk.on_terminal("vsh", &["termina", "penguin"]);
    shell.type_in("stty size; tty; echo $TERM\r");
    shell.see("24 80\r\n");
    shell.see("/dev/pts/");
    shell.see("xterm\r\n");
    shell.type_in("exit 5\r");
    assert_eq!(shell.end(), 5);
    let setup = desk.vshd.seen().setups.remove(0);
    assert_eq!(setup.window.unwrap().columns, 80);
}

#[test]
fn a_new_window_size_reaches_the_process() {
    let desk = Desk::new();
    let script = "trap 'stty size' WINCH; echo ready; while :; do :; done";
    let mut shell = desk.on_terminal("vsh", &["termina", "penguin", "--", "bash", "-c", script]);
    shell.see("ready");
    shell.resize(132, 43);
    shell.see("43 132");
    shell.type_in("\x03");
    assert_eq!(shell.end(), 130);
}

#[test]
fn control_characters_are_for_the_process() {
    let desk = Desk::new();
    let mut shell = desk.on_terminal("vsh", &["termina", "penguin", "--", "cat", "-v"]);
    shell.type_in("a\x16\x1bb\r");
    shell.see("a^[b\r\na^[b\r\n");
    shell.type_in("\x04");
    assert_eq!(shell.end(), 0);
}

#[test]
fn the_terminal_is_as_before_when_the_session_ends() {
    let desk = Desk::new();
    let line = "before=$(stty -g); vsh termina penguin -- true; test \"$(stty -g)\" = \"$before\" && echo same";
    let mut seen = desk.shell_on_terminal(line);
    seen.see("same");
    assert_eq!(seen.end(), 0);
}

#[test]
fn the_terminal_is_as_before_when_we_are_terminated() {
    let desk = Desk::new();
    // The process ignores the signal, as an interactive shell does; so it is our patience that ends.
    let script = "before=$(stty -g); \
        (sleep 1; kill -TERM $(cat pid)) & \
        sh -c 'echo $$ > pid; exec vsh termina penguin -- sh -c \"trap : TERM; echo up; while :; do sleep 1; done\"'; \
        echo status $?; test \"$(stty -g)\" = \"$before\" && echo same";
    let mut seen = desk.shell_on_terminal(script);
    seen.see("up");
    seen.see("status 143");
    seen.see("same");
    assert_eq!(seen.end(), 0);
}

#[test]
fn the_escape_leaves_a_session_that_does_not_answer() {
    let desk = Desk::new();
    let script = "before=$(stty -g); vsh termina penguin -- sh -c 'trap \"\" HUP INT; stty raw -echo; echo stuck; sleep 20'; \
        echo status $?; test \"$(stty -g)\" = \"$before\" && echo same";
    let mut seen = desk.shell_on_terminal(script);
    seen.see("stuck");
    seen.type_in("\r~?");
    seen.see("~.  leave");
    seen.type_in("~.");
    seen.see("left the session");
    seen.see("status 125");
    seen.see("same");
    assert_eq!(seen.end(), 0);
}

#[test]
fn a_lost_connection_is_told_and_the_terminal_restored() {
    let desk = Desk::new();
    let mut seen =
        desk.shell_on_terminal("vsh termina penguin -- sh -c 'echo up; cat'; echo status $?");
    seen.see("up");
    desk.vshd.hang_up();
    seen.see("the connection to the VM ended (E-SESSION-LOST)");
    seen.see("status 125");
    assert_eq!(seen.end(), 0);
}

#[test]
fn a_terminal_can_be_forced_and_refused() {
    let desk = Desk::new();
    let forced = desk.run("vsh", &["-t", "termina", "penguin", "--", "tty"]);
    assert!(forced.text().starts_with("/dev/pts/"), "{forced}");
    let mut refused = desk.on_terminal(
        "vsh",
        &["-T", "termina", "penguin", "--", "sh", "-c", "tty; true"],
    );
    refused.see("not a tty");
    assert_eq!(refused.end(), 0);
}

#[test]
fn output_is_not_cleaned_on_its_way_to_the_terminal() {
    let desk = Desk::new();
    let mut seen = desk.on_terminal(
        "vsh",
        &["termina", "penguin", "--", "printf", r"\033[31mred"],
    );
    seen.see("\x1b[31mred");
    assert_eq!(seen.end(), 0);
}
