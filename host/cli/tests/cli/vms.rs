//! The VM verbs.

use wire::proto::VmState;

use crate::desk::Desk;

#[test]
fn list_shows_all_vms() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("vmc", &["list"]), @r"
    NAME     STATE    CPUS  MEMORY  SIZE  HOST  ENGINE
    termina  running  2     2G      20G   700M  qemu
    lab      stopped  2     2G      20G   700M  -
    --- stderr
    total on this host: 1.3G
    --- exit 0
    ");
    insta::assert_snapshot!(desk.run("vmc", &["ls", "-q"]), @r"
    termina
    lab
    --- exit 0
    ");
    insta::assert_snapshot!(Desk::empty().run("vmc", &["list"]), @r"
    --- stderr
    there is no VM yet
    next: vmc start termina
    --- exit 0
    ");
}

#[test]
fn info_of_a_running_and_of_a_stopped_vm() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("vmc", &["info", "termina"]), @r"
    name:         termina
    state:        running
    processors:   2
    memory:       2G
    disk:         20G, 700M on this host
    created:      2026-01-02 03:04 UTC
    started:      2026-01-02 03:05 UTC
    engine:       qemu (no hardware virtualisation), process 4242
    host memory:  300M
    up:           1 h 2 min
    boot:         kernel 512 ms, agent 230 ms
    guest memory: 80M used, 1.8G available of 1.9G
    guest disk:   500M used, 19G available of 20G
    pressure:     processor 1.5 %, memory 0.5 %, disk 0.2 %
    load:         0.25, 31 processes
    --- exit 0
    ");
    desk.daemon().world().vms[1].last_end = "killed by signal 9".to_owned();
    insta::assert_snapshot!(desk.run("vmc", &["info", "lab"]), @r"
    name:       lab
    state:      stopped
    processors: 2
    memory:     2G
    disk:       20G, 700M on this host
    created:    2026-01-02 03:04 UTC
    last end:   killed by signal 9
    --- exit 0
    ");
}

#[test]
fn create_passes_sizes_in_bytes() {
    let desk = Desk::new();
    let arguments = [
        "create", "--size", "20G", "--cpus", "3", "--memory", "4G", "work",
    ];
    insta::assert_snapshot!(desk.run("vmc", &arguments), @r"
    --- stderr
    created VM work
    next: vmc start work
    --- exit 0
    ");
    assert_eq!(desk.changes(), ["Vms.Create work 21474836480 3 4096"]);
    insta::assert_snapshot!(desk.run("vmc", &["create", "--size", "1.5G", "x"]), @r#"
    --- stderr
    error: invalid value '1.5G' for '--size <SIZE>': "1.5G" is not a size: write a number with an optional K, M, G or T, such as 20G

    For more information, try '--help'.
    --- exit 2
    "#);
}

#[test]
fn start_ends_in_a_shell_unless_told_otherwise() {
    let desk = Desk::new();
    assert_eq!(
        desk.run("vmc", &["start", "--no-shell", "lab"]).to_string(),
        "--- exit 0"
    );
    assert_eq!(desk.daemon().world().vms[1].state(), VmState::Running);
    let shown = desk.feed("vmc", &["start", "termina"], b"echo in the VM; exit 7\n");
    assert_eq!(shown.to_string(), "in the VM\n--- exit 7");
    assert_eq!(desk.vshd.seen().setups[0].container, "");
}

#[test]
fn save_puts_a_vm_away() {
    let desk = Desk::new();
    assert_eq!(desk.run("vmc", &["save", "termina"]).status, 0);
    assert_eq!(desk.daemon().world().vms[0].state(), VmState::Saved);
    let list = desk.run("vmc", &["list"]).to_string();
    assert!(list.contains("saved"), "{list}");
}

#[test]
fn start_makes_a_vm_that_does_not_exist() {
    let desk = Desk::empty();
    assert_eq!(desk.run("vmc", &["start", "--no-shell", "new"]).status, 0);
    assert_eq!(desk.daemon().world().vms[0].name, "new");
}

#[test]
fn container_goes_from_nothing_to_a_shell() {
    let desk = Desk::empty();
    let shown = desk.feed("vmc", &["container", "termina", "penguin"], b"echo hello\n");
    assert_eq!(shown.to_string(), "hello\n--- exit 0");
    assert_eq!(
        desk.changes(),
        [
            "Vms.Start termina",
            "Containers.Create termina penguin",
            "Containers.Start termina penguin",
            "Vms.Vsock termina"
        ]
    );
}

#[test]
fn stop_and_kill() {
    let desk = Desk::new();
    assert_eq!(
        desk.run("vmc", &["stop", "termina", "--timeout", "3"])
            .to_string(),
        "--- exit 0"
    );
    assert_eq!(
        desk.run("vmc", &["kill", "termina"]).to_string(),
        "--- exit 0"
    );
    assert_eq!(
        desk.changes(),
        ["Vms.Stop termina 3000", "Vms.Kill termina"]
    );
    insta::assert_snapshot!(desk.run("vmc", &["stop", "temrina"]), @r"
    --- stderr
    error: there is no VM temrina (E-VM-NOTFOUND)
    hint:  did you mean termina?
    --- exit 3
    ");
}

#[test]
fn destroy_needs_a_yes_from_somebody() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("vmc", &["destroy", "lab"]), @r"
    --- stderr
    error: this needs to be confirmed (E-CONFIRM)
    cause: delete VM lab and everything in it (700M on this host)?
    hint:  to confirm it beforehand: -y
    --- exit 7
    ");
    let mut asked = desk.on_terminal("vmc", &["destroy", "lab"]);
    asked.see("delete VM lab and everything in it (700M on this host)? [y/N] ");
    asked.type_in("y\n");
    asked.see("deleted VM lab");
    assert_eq!(asked.end(), 0);
    let forced = desk.run("vmc", &["destroy", "-y", "-f", "termina"]);
    assert_eq!(
        forced.to_string(),
        "--- stderr\ndeleted VM termina\n--- exit 0"
    );
    assert_eq!(
        desk.changes(),
        ["Vms.Destroy lab false", "Vms.Destroy termina true"]
    );
}

#[test]
fn set_says_when_it_holds() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("vmc", &["set", "termina", "cpus=4", "memory=8G"]), @r"
    --- stderr
    applies at the VM's next start
    next: vmc stop termina && vmc start termina
    --- exit 0
    ");
    insta::assert_snapshot!(desk.run("testudo", &["--vm", "lab", "set", "cpus=1"]), @r"
    --- stderr
    applied
    --- exit 0
    ");
    insta::assert_snapshot!(desk.run("vmc", &["set", "lab", "cpu=1"]), @r#"
    --- stderr
    error: invalid value 'cpu=1' for '<KEY=VALUE>...': there is no setting "cpu"; did you mean cpus?

    For more information, try '--help'.
    --- exit 2
    "#);
    let world = desk.daemon().world();
    assert_eq!(
        (
            world.vms[0].cpus,
            world.vms[0].memory_mib,
            world.vms[1].cpus
        ),
        (4, 8192, 1)
    );
}

#[test]
fn the_clipboard_has_modes_and_crosses_by_command() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["set", "clipboard=explicit"]), @r"
    --- stderr
    applied
    --- exit 0
    ");
    insta::assert_snapshot!(desk.run("testudo", &["clipboard", "to-guest"]), @r"
    --- stderr
    one transfer may cross within a minute
    --- exit 0
    ");
    // The daemon asks once; without a terminal nobody can be asked, which is no yes.
    insta::assert_snapshot!(desk.run("testudo", &["clipboard"]), @r"
    --- stderr
    asks here about each transfer, until Ctrl-C
    error: this needs to be confirmed (E-CONFIRM)
    cause: termina wants what was copied on the host (text/plain): allow?
    hint:  to confirm it beforehand: testudo set clipboard=on
    --- exit 7
    ");
    assert_eq!(
        desk.changes(),
        [
            "Vms.Set termina to-guest=true to-host=true CLIPBOARD_MODE_EXPLICIT",
            "Vms.GrantClipboard termina CLIPBOARD_WAY_TO_GUEST",
            "Vms.ClipboardQuestions termina",
            "Vms.AnswerClipboard termina 7 false",
        ]
    );
}

#[test]
fn resize() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("vmc", &["resize", "lab", "40G"]), @r"
    --- stderr
    the disk of lab has 40G
    --- exit 0
    ");
    assert_eq!(desk.daemon().world().vms[1].disk_bytes, 40 << 30);
}

#[test]
fn export_and_import_with_digest() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("vmc", &["export", "-d", "lab", "lab.zst"]), @r"
    --- stderr
    exported lab (14B)
    --- exit 0
    ");
    let digest = std::fs::read_to_string(desk.path("work/lab.zst.sha256.txt")).unwrap();
    let check = std::process::Command::new("sha256sum")
        .args(["--check", "--status", "lab.zst.sha256.txt"])
        .current_dir(desk.path("work"))
        .status()
        .unwrap();
    assert!(check.success(), "{digest}");
    insta::assert_snapshot!(desk.run("vmc", &["import", "other", "lab.zst"]), @r"
    --- stderr
    created VM other
    next: vmc start other
    --- exit 0
    ");
    assert_eq!(desk.changes(), ["Vms.Export lab", "Vms.Import other 14"]);
}

#[test]
fn a_log_goes_to_stdout_or_a_new_file() {
    let desk = Desk::new();
    assert_eq!(
        desk.run("vmc", &["logs", "lab"]).to_string(),
        "booted\n--- exit 0"
    );
    assert_eq!(
        desk.run("vmc", &["logs", "--agent", "lab", "out"])
            .to_string(),
        "--- exit 0"
    );
    assert_eq!(std::fs::read(desk.path("work/out")).unwrap(), b"booted\n");
    assert_eq!(desk.run("vmc", &["logs", "lab", "out"]).status, 4);
    assert_eq!(
        desk.changes(),
        [
            "Vms.Logs lab VM_LOG_ALL false",
            "Vms.Logs lab VM_LOG_AGENT false"
        ]
    );
}
