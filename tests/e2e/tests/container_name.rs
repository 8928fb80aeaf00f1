//! A container name's way, through every verb: made, listed, started, entered, renamed, copied, snapshotted, exported, deleted.
//!
//! Method: each verb, then the state as `list` and the container itself tell it. End to end, because the name is parsed once, in
//! the client, and LXC is who acts on it three processes later.

use fixture::{Home, walk};

walk!(
    the_first_container_is_penguin,
    a_second_one_is_created_started_and_entered,
    containers_of_one_vm_are_apart,
    stop_start_and_restart_do_what_they_say,
    a_rename_keeps_the_files,
    a_copy_is_independent,
    a_snapshot_brings_back_what_was,
    an_export_is_imported_as_another,
    logs_and_info_tell_of_it,
    a_deleted_container_is_gone,
    a_deleted_penguin_comes_back_fresh,
);

/// Returns name and state of each container.
fn list(home: &Home) -> Vec<(String, String)> {
    let text = home.testudo(&["list", "--json"]).ok().text();
    let entry = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON Lines");
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        (text("name"), text("state"))
    };
    text.lines().map(entry).collect()
}

fn state(home: &Home, name: &str) -> Option<String> {
    list(home)
        .into_iter()
        .find(|(found, _)| found == name)
        .map(|(_, state)| state)
}

fn inside(home: &Home, name: &str, line: &str) -> fixture::Done {
    home.testudo(&["exec", name, "--", "sh", "-c", line])
}

fn the_first_container_is_penguin(home: &mut Home) {
    assert_eq!(home.shell("hostname").ok().text(), "penguin");
    assert_eq!(list(home), [("penguin".to_owned(), "running".to_owned())]);
}

fn a_second_one_is_created_started_and_entered(home: &mut Home) {
    let _ = home.testudo(&["create", "dev"]).ok();
    let _ = home
        .testudo(&["create", "dev"])
        .code(4)
        .says(&["error:", "dev"]);
    let _ = home.testudo(&["start", "dev"]).ok();
    let _ = home.testudo(&["start", "dev"]).ok();
    assert_eq!(
        inside(home, "dev", "hostname; sudo -n id -u").ok().text(),
        "dev\n0"
    );
    assert_eq!(state(home, "dev").as_deref(), Some("running"));
}

fn containers_of_one_vm_are_apart(home: &mut Home) {
    let _ = inside(home, "dev", "echo secret > /tmp/mine").ok();
    let _ = home.shell("test ! -e /tmp/mine").ok();
    let _ = inside(home, "dev", "sleep 777 & echo").ok();
    assert_eq!(home.shell("pgrep -fx 'sleep 777' | wc -l").ok().text(), "0");
    // Ids inside are not the VM's: root in the container is nobody outside.
    let owner = home.vm_shell("stat -c %u /proc/$(pidof sleep)").ok().text();
    assert!(
        owner.parse::<u32>().is_ok_and(|uid| uid >= 65_536),
        "runs as {owner}"
    );
    // Yet they find each other by name.
    let found = inside(home, "dev", "getent ahostsv4 penguin; getent hosts penguin").ok();
    let addresses = home.shell("hostname -I").ok().text();
    for address in addresses.split_whitespace() {
        assert!(found.text().contains(address), "{addresses}: {found}");
    }
}

fn stop_start_and_restart_do_what_they_say(home: &mut Home) {
    let up = |home: &Home| inside(home, "dev", "stat -c %Y /proc/1").ok().text();
    let _ = home.testudo(&["stop", "dev"]).ok();
    assert_eq!(state(home, "dev").as_deref(), Some("stopped"));
    let _ = home.testudo(&["stop", "dev"]).ok();
    let _ = home.testudo(&["start", "dev"]).ok();
    let first = up(home);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let _ = home.testudo(&["restart", "dev"]).ok();
    assert_ne!(up(home), first);
    assert_eq!(
        state(home, "penguin").as_deref(),
        Some("running"),
        "the other one is left alone"
    );
}

fn a_rename_keeps_the_files(home: &mut Home) {
    let _ = inside(home, "dev", "echo kept > ~/kept; sync").ok();
    let _ = home.testudo(&["stop", "dev"]).ok();
    let _ = home.testudo(&["rename", "dev", "penguin"]).code(4);
    let _ = home.testudo(&["rename", "dev", "work"]).ok();
    let _ = home.testudo(&["start", "work"]).ok();
    assert_eq!(
        inside(home, "work", "cat ~/kept; hostname").ok().text(),
        "kept\nwork"
    );
    assert_eq!(state(home, "dev"), None);
}

fn a_copy_is_independent(home: &mut Home) {
    let _ = home.testudo(&["stop", "work"]).ok();
    let _ = home.testudo(&["copy", "work", "twin"]).ok();
    let _ = home.testudo(&["start", "twin"]).ok();
    let _ = inside(home, "twin", "cat ~/kept && echo changed > ~/kept; sync").ok();
    let _ = home.testudo(&["start", "work"]).ok();
    assert_eq!(inside(home, "work", "cat ~/kept").ok().text(), "kept");
    let machine = |name: &str| inside(home, name, "cat /etc/machine-id").ok().text();
    assert_ne!(
        machine("work"),
        machine("twin"),
        "two machines with one identity"
    );
    let _ = home.testudo(&["delete", "--force", "--yes", "twin"]).ok();
}

fn a_snapshot_brings_back_what_was(home: &mut Home) {
    let _ = inside(home, "work", "echo one > ~/state; sync").ok();
    let _ = home.testudo(&["snapshot", "create", "work", "one"]).ok();
    let _ = home.testudo(&["snapshot", "create", "work", "one"]).code(4);
    let _ = inside(home, "work", "echo two > ~/state; rm ~/kept; sync").ok();
    let list = home
        .testudo(&["snapshot", "list", "work", "--quiet"])
        .ok()
        .text();
    assert_eq!(list, "one");
    let _ = home.testudo(&["stop", "work"]).ok();
    let _ = home.testudo(&["snapshot", "restore", "work", "one"]).ok();
    let _ = home.testudo(&["start", "work"]).ok();
    assert_eq!(
        inside(home, "work", "cat ~/state ~/kept").ok().text(),
        "one\nkept"
    );
    let _ = home.testudo(&["snapshot", "delete", "work", "one"]).ok();
    let _ = home.testudo(&["snapshot", "delete", "work", "one"]).code(3);
    let _ = home
        .testudo(&["snapshot", "restore", "work", "one"])
        .code(3);
}

fn an_export_is_imported_as_another(home: &mut Home) {
    let _ = inside(
        home,
        "work",
        "sudo touch /opt/with-acl; ln -s /nowhere ~/dangling; mkfifo ~/pipe; sync",
    )
    .ok();
    let file = home.path("home/work.tar.zst");
    let file = file.to_str().expect("text");
    let _ = home.testudo(&["stop", "work"]).ok();
    let _ = home.testudo(&["export", "work", file]).ok();
    let _ = home.testudo(&["import", file, "back"]).ok();
    let _ = home.testudo(&["start", "back"]).ok();
    let done = inside(
        home,
        "back",
        "cat ~/kept; readlink ~/dangling; test -p ~/pipe; sudo -n id -u; stat -c %U ~",
    )
    .ok();
    assert!(done.text().starts_with("kept\n/nowhere\n0\n"), "{done}");
    let whole = std::fs::read(file).expect("it was written");
    std::fs::write(file, &whole[..whole.len() / 2]).expect("the folder is ours");
    let done = home.testudo(&["import", file, "half"]);
    assert!(done.code != 0 && done.errors().contains("error:"), "{done}");
    assert_eq!(state(home, "half"), None, "half a container has a name");
    let _ = home.testudo(&["delete", "--force", "--yes", "back"]).ok();
}

fn logs_and_info_tell_of_it(home: &mut Home) {
    let _ = home.testudo(&["start", "work"]).ok();
    let info = home.testudo(&["info", "--json", "work"]).ok().json();
    assert_eq!(
        (&info["name"], &info["state"]),
        (&"work".into(), &"running".into()),
        "{info}"
    );
    assert!(
        info["distribution"]
            .as_str()
            .is_some_and(|text| text.contains("Debian")),
        "{info}"
    );
    assert!(
        info["addresses"]
            .as_array()
            .is_some_and(|list| !list.is_empty()),
        "{info}"
    );
    assert!(
        info["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0),
        "{info}"
    );
    assert!(
        !home.testudo(&["logs", "work"]).ok().stdout.is_empty(),
        "a started container has a log"
    );
}

fn a_deleted_container_is_gone(home: &mut Home) {
    let done = home.testudo(&["delete", "--no-input", "work"]);
    assert!(
        done.code != 0,
        "a running container is not deleted without being asked: {done}"
    );
    let _ = home.testudo(&["delete", "--force", "--yes", "work"]).ok();
    assert_eq!(state(home, "work"), None);
    let _ = home
        .testudo(&["delete", "--force", "--yes", "work"])
        .code(3);
    let _ = home
        .testudo(&["exec", "work", "--", "true"])
        .code(125)
        .says(&["work"]);
    let left = home.vm_shell("ls /data/containers").ok().text();
    assert_eq!(left, "penguin", "what is deleted takes no room");
}

fn a_deleted_penguin_comes_back_fresh(home: &mut Home) {
    let _ = home.shell("echo old > ~/old; sync").ok();
    let _ = home
        .testudo(&["delete", "--force", "--yes", "penguin"])
        .ok();
    let _ = home.shell("test ! -e ~/old").ok();
}
