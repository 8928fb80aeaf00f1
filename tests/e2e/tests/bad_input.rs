//! Bad input: names, images, configuration, a machine without the programs it needs. One clear error, the right status, nothing
//! left behind, and the next good command works.
//!
//! Method: each wrong thing alone, on an otherwise working user. End to end, because it is the whole that must neither hang nor
//! leave anything.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use fixture::{Cell, Done, Home, Role, walk};

walk!(
    names_that_cannot_be_are_refused,
    usage_errors_have_their_own_status,
    a_missing_image_is_one_clear_error,
    a_truncated_image_is_refused_before_anything_starts,
    a_changed_image_is_refused_before_anything_starts,
    a_configuration_with_an_unknown_key_is_refused,
    without_qemu_the_hint_says_what_to_install,
    without_passt_the_vm_runs_and_says_that_it_has_no_network,
    a_foreign_runtime_folder_is_not_used,
    the_right_image_works_after_all_that,
);

fn refused(done: Done, words: &[&str]) {
    assert!(done.code != 0, "it was accepted: {done}");
    let _ = done.says(words);
}

fn names_that_cannot_be_are_refused(home: &mut Home) {
    let long = "x".repeat(64);
    for name in [
        "",
        "-",
        "Upper",
        "under_score",
        "dot.dot",
        "..",
        "a/b",
        "ünï",
        "new\nline",
        "trailing-",
        "1digit",
        &long,
    ] {
        for (program, verb) in [("testudo", "create"), ("vmc", "create")] {
            let done = home.run(program, &[verb, "--", name]);
            assert!(matches!(done.code, 1 | 2), "{name:?}: {done}");
            assert!(done.errors().contains("error"), "{name:?}: {done}");
        }
    }
    assert!(
        home.processes(Role::Concierge).is_empty(),
        "a wrong name is refused by the client"
    );
}

fn usage_errors_have_their_own_status(home: &mut Home) {
    let _ = home.testudo(&["no-such-verb"]).code(2);
    let _ = home.testudo(&["create", "--no-such-option"]).code(2);
    let _ = home.testudo(&["run", "--no-such-option"]).code(125);
    let _ = home.run("vmc", &["resize", "termina", "huge"]).code(2);
}

/// Copies the image, with one file changed by `damage`, and uses it.
fn with_damage(home: &Home, name: &str, damage: impl Fn(&Path)) -> Done {
    let folder = home.path("damaged");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).expect("the folder is ours");
    for entry in std::fs::read_dir(home.image())
        .expect("the image is there")
        .flatten()
    {
        let to = folder.join(entry.file_name());
        if entry.file_name() == name {
            let status = std::process::Command::new("cp")
                .arg("--sparse=always")
                .arg(entry.path())
                .arg(&to)
                .status();
            assert!(status.expect("cp is there").success());
            std::fs::set_permissions(&to, PermissionsExt::from_mode(0o600))
                .expect("the copy is ours");
            damage(&to);
        } else {
            symlink(entry.path(), &to).expect("the folder is ours");
        }
    }
    home.use_image(&folder);
    let done = home.testudo(&["run", "--", "true"]);
    let _ = home.testudo(&["shutdown"]);
    home.use_image(&home.image());
    assert!(
        home.processes(Role::Engine).is_empty(),
        "{name}: an engine is left"
    );
    assert!(
        !home.path("data/testudo/vms/termina/data.btrfs").exists() || name != "data.btrfs",
        "half a disk has a real name"
    );
    done
}

fn a_missing_image_is_one_clear_error(home: &mut Home) {
    home.use_image(&home.path("nowhere"));
    refused(
        home.testudo(&["run", "--", "true"]),
        &["error:", "nowhere", "hint:"],
    );
    let _ = home.testudo(&["shutdown"]);
    home.use_image(&home.image());
    for name in ["vmlinux", "root.erofs", "data.btrfs", "manifest.json"] {
        let done = with_damage(home, name, |path| {
            std::fs::remove_file(path).expect("it was copied");
        });
        assert_eq!(done.code, 125, "{name}: {done}");
        let _ = done.says(&["error:", "hint:"]);
    }
}

fn a_truncated_image_is_refused_before_anything_starts(home: &mut Home) {
    for name in ["vmlinux", "root.erofs", "data.btrfs", "manifest.json"] {
        let cut = |path: &Path| {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(path)
                .expect("it was copied");
            let length = file.metadata().expect("it is open").len();
            file.set_len(length / 2).expect("it is ours");
        };
        let done = with_damage(home, name, cut);
        assert_eq!(done.code, 125, "{name}: {done}");
        let _ = done.says(&["error:"]);
    }
}

fn a_changed_image_is_refused_before_anything_starts(home: &mut Home) {
    for name in ["vmlinux", "root.erofs"] {
        let flip = |path: &Path| {
            let mut bytes = std::fs::read(path).expect("it was copied");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(path, bytes).expect("it is ours");
        };
        let done = with_damage(home, name, flip);
        assert_eq!(done.code, 125, "{name}: {done}");
        let _ = done.says(&["error:", name]);
    }
}

fn a_configuration_with_an_unknown_key_is_refused(home: &mut Home) {
    home.configure("memroy = \"2G\"\n");
    refused(
        home.testudo(&["run", "--", "true"]),
        &["error:", "memroy", "config.toml"],
    );
    home.configure("this is no TOML");
    refused(
        home.testudo(&["run", "--", "true"]),
        &["error:", "config.toml"],
    );
    let _ = home.testudo(&["shutdown"]);
    home.use_image(&home.image());
}

/// Returns where each program of that name is.
fn programs(name: &str) -> Vec<PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/usr/sbin"]
        .map(|folder| Path::new(folder).join(name))
        .into_iter()
        .filter(|path| path.exists())
        .collect()
}

fn without_qemu_the_hint_says_what_to_install(home: &mut Home) {
    // Also where our own engine runs, and where there is none to hide.
    home.configure(&format!("image = {:?}\nengine = \"qemu\"\n", home.image()));
    home.start_daemon_in(&Cell {
        hidden: programs("qemu-system-x86_64"),
        ..Cell::default()
    });
    let done = home.testudo(&["run", "--", "true"]).code(125);
    home.shut_down();
    home.use_image(&home.image());
    let _ = done.says(&["error:", "qemu", "hint:"]);
}

fn without_passt_the_vm_runs_and_says_that_it_has_no_network(home: &mut Home) {
    let hidden = programs("passt");
    assert!(!hidden.is_empty(), "there is a passt to hide");
    home.start_daemon_in(&Cell {
        hidden,
        ..Cell::default()
    });
    let done = home.testudo(&["run", "--", "hostname"]).ok();
    home.shut_down();
    assert_eq!(done.text(), "penguin");
    let _ = done.says(&["passt", "no network"]);
}

fn a_foreign_runtime_folder_is_not_used(home: &mut Home) {
    let run = home.path("run/testudo");
    let _ = std::fs::remove_dir_all(&run);
    symlink("/tmp", &run).expect("the folder is ours");
    refused(home.testudo(&["run", "--", "true"]), &["error:"]);
    std::fs::remove_file(&run).expect("it is ours");
}

fn the_right_image_works_after_all_that(home: &mut Home) {
    assert_eq!(home.shell("echo works").ok().text(), "works");
}
