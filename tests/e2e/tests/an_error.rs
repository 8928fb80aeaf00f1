//! An error's way: from where it happened to the terminal, with every cause once, a stable code and something to do.
//!
//! Method: failures made at each end of the chain, read as a person and as a script would. End to end, because a cause is lost
//! or doubled at a hop.

use fixture::{Done, Home, walk};

walk!(
    what_lxc_says_reaches_the_user,
    a_script_gets_kind_code_and_causes,
    no_line_is_said_twice,
    the_hint_can_be_followed,
    control_characters_of_the_guest_do_not_reach_the_terminal,
);

/// Makes a container in which nothing can be mounted on /proc, so that its start fails inside LXC.
fn broken_start(home: &Home) -> Done {
    let _ = home.testudo(&["create", "broken"]);
    let _ = home
        .vm_shell("cd /data/containers/broken/rootfs; rm -rf proc; echo > proc")
        .ok();
    home.testudo(&["start", "broken"])
}

fn what_lxc_says_reaches_the_user(home: &mut Home) {
    let done = broken_start(home);
    assert!(done.code != 0, "{done}");
    let said = done.errors();
    assert!(said.contains("error:") && said.contains("broken"), "{said}");
    // The last word is the kernel's, by way of LXC.
    assert!(
        said.contains("cause:") && said.contains("Not a directory"),
        "{said}"
    );
}

fn a_script_gets_kind_code_and_causes(home: &mut Home) {
    let done = home.run("vmc", &["info", "--json", "no-such-vm"]).code(3);
    let error: serde_json::Value =
        serde_json::from_str(done.errors().trim()).expect("one line of JSON");
    assert_eq!(error["type"], "error");
    assert_eq!(error["kind"], "not-found");
    assert!(
        error["code"]
            .as_str()
            .is_some_and(|code| code.starts_with("E-")),
        "{error}"
    );
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| message.contains("no-such-vm")),
        "{error}"
    );
    assert_eq!(done.text(), "", "an error is no data");
}

fn no_line_is_said_twice(home: &mut Home) {
    let said = broken_start(home).errors();
    let causes: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(_, text)| text.trim())
        .collect();
    for (index, cause) in causes.iter().enumerate() {
        assert!(
            !causes[index + 1..].contains(cause),
            "{cause:?} is said twice:\n{said}"
        );
    }
}

fn the_hint_can_be_followed(home: &mut Home) {
    let said = home.testudo(&["create", "Bad_Name"]).errors();
    assert!(said.contains("bad-name"), "{said}");
    let _ = home.testudo(&["create", "bad-name"]).ok();
    let _ = home
        .testudo(&["delete", "--force", "--yes", "bad-name"])
        .ok();
}

fn control_characters_of_the_guest_do_not_reach_the_terminal(home: &mut Home) {
    let _ = home.shell("printf 'PRETTY_NAME=\"Evil \\033]0;title\\007\\033[2J\"\\n' | sudo tee /etc/os-release > /dev/null").ok();
    let info = home.testudo(&["info", "penguin"]).ok();
    assert!(
        !info.stdout.contains(&0x1b) && !info.stdout.contains(&0x07),
        "{info}"
    );
    let _ = home.testudo(&["delete", "--force", "--yes", "broken"]).ok();
}
