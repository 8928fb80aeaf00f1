//! The doctor, on this real machine and with what is broken on purpose.

use serde_json::Value;

use crate::desk::Desk;

fn checks(desk: &Desk, arguments: &[&str]) -> (Vec<Value>, i32) {
    let shown = desk.run("testudo", &[&["doctor", "--json"], arguments].concat());
    let report: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (&report["version"], &report["type"]),
        (&1.into(), &"doctor".into())
    );
    let checks = report["checks"].as_array().unwrap().clone();
    let failed = checks.iter().any(|check| check["status"] == "fail");
    assert_eq!(report["ok"], !failed);
    (checks, shown.status)
}

fn check<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    checks
        .iter()
        .find(|check| check["check"] == name)
        .unwrap_or_else(|| panic!("no check {name}"))
}

/// Writes an image of three small files with a right manifest.
fn image(desk: &Desk) {
    let folder = desk.path("data/testudo/image");
    std::fs::create_dir_all(&folder).unwrap();
    // The sha256 of "abc", FIPS 180-2 §B.1.
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let mut outputs = serde_json::Map::new();
    for name in ["vmlinux", "root.erofs", "data.btrfs"] {
        std::fs::write(folder.join(name), "abc").unwrap();
        outputs.insert(
            name.to_owned(),
            serde_json::json!({ "sha256": hash, "bytes": 3 }),
        );
    }
    let manifest = serde_json::json!({ "format": 1, "outputs": outputs });
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

#[test]
fn every_check_that_was_promised_is_there() {
    let desk = Desk::without_daemon();
    let (checks, status) = checks(&desk, &[]);
    for name in [
        "configuration",
        "processor",
        "kvm",
        "qemu",
        "engine",
        "passt",
        "programs",
        "user-namespaces",
        "landlock",
        "id-ranges",
        "user",
        "cgroups",
        "disk",
        "memory",
        "image",
        "runtime-folder",
        "daemon",
        "locks",
    ] {
        let found = check(&checks, name);
        let ok = found["status"] == "ok";
        assert_eq!(
            found["mend"].is_null(),
            ok,
            "what is not ok has a mend: {found}"
        );
    }
    assert_eq!(status, 1, "there is no image");
}

#[test]
fn the_image_is_checked_as_deep_as_asked() {
    let desk = Desk::without_daemon();
    assert_eq!(
        check(&checks(&desk, &[]).0, "image")["mend"],
        "cargo xtask image"
    );
    image(&desk);
    assert_eq!(
        check(&checks(&desk, &["--deep"]).0, "image-hashes")["status"],
        "ok"
    );
    let root = desk.path("data/testudo/image/root.erofs");
    std::fs::write(&root, "abd").unwrap();
    assert_eq!(check(&checks(&desk, &[]).0, "image")["status"], "ok");
    let deep = checks(&desk, &["--deep"]).0;
    assert_eq!(
        check(&deep, "image-hashes")["found"],
        "root.erofs differs from the manifest"
    );
    std::fs::write(&root, "ab").unwrap();
    let found = checks(&desk, &[]).0;
    assert_eq!(
        check(&found, "image")["found"],
        "root.erofs has 2 bytes, the manifest says 3"
    );
}

#[test]
fn missing_programs_come_with_the_command_that_installs_them() {
    let desk = Desk::without_daemon();
    let output = desk
        .command("testudo", &["doctor", "--json"])
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = report["checks"].as_array().unwrap().clone();
    for (name, package) in [("qemu", "qemu-system-x86"), ("passt", "passt")] {
        let mend = check(&found, name)["mend"].as_str().unwrap().to_owned();
        assert!(mend.contains("install") && mend.contains(package), "{mend}");
    }
}

#[test]
fn what_a_killed_daemon_left_is_found() {
    let desk = Desk::without_daemon();
    let socket = desk.path("run/testudo/concierge.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let lock = desk.path("data/testudo/vms/lab/lock");
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let held = std::fs::File::create(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let found = checks(&desk, &[]).0;
    assert_eq!(check(&found, "daemon")["status"], "warn");
    assert_eq!(check(&found, "locks")["status"], "fail");
    drop(held);
    assert_eq!(check(&checks(&desk, &[]).0, "locks")["status"], "ok");
}

#[test]
fn a_wrong_configuration_does_not_stop_the_doctor() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("config/testudo")).unwrap();
    std::fs::write(desk.path("config/testudo/config.toml"), "x = 1\n").unwrap();
    let found = checks(&desk, &[]).0;
    assert_eq!(check(&found, "configuration")["status"], "fail");
    assert_eq!(check(&found, "daemon")["found"], "answers");
}

#[test]
fn for_people_each_mend_stands_under_its_finding() {
    let desk = Desk::without_daemon();
    let shown = desk.run("testudo", &["doctor"]);
    let lines: Vec<_> = shown.text().lines().collect();
    let at = lines
        .iter()
        .position(|line| line.starts_with("FAIL  image"))
        .unwrap();
    assert_eq!(lines[at + 1].trim(), "mend: cargo xtask image");
    let quiet = desk.run("testudo", &["doctor", "-q"]);
    assert!(
        !quiet.text().lines().any(|line| line.starts_with("ok")),
        "{quiet}"
    );
}
