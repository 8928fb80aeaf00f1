//! The container verbs: what is asked of the daemon and what is printed.

use wire::proto::{ContainerSource, VmState};
use wire::{Fault, Kind};

use crate::desk::Desk;

#[test]
fn list_shows_containers_and_names_vms_that_do_not_run() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["list"]), @r"
    NAME     STATE    VM       SYSTEM                        ADDRESS       MEMORY  DISK
    dev      stopped  termina  Fedora Linux 42               -             -       12M
    penguin  running  termina  Debian GNU/Linux 13 (trixie)  100.115.93.2  45M     12M
    --- stderr
    VM lab is stopped: its containers are not known until it runs (vmc start lab --no-shell)
    --- exit 0
    ");
    insta::assert_snapshot!(desk.run("testudo", &["ls", "-q"]), @r"
    dev
    penguin
    --- exit 0
    ");
}

#[test]
fn list_starts_nothing() {
    let desk = Desk::new();
    desk.run("testudo", &["list"]);
    assert_eq!(desk.changes(), [""; 0]);
    assert_eq!(desk.daemon().world().vms[1].state(), VmState::Stopped);
}

#[test]
fn an_empty_world_suggests_how_to_begin() {
    let desk = Desk::empty();
    insta::assert_snapshot!(desk.run("testudo", &["list"]), @r"
    --- stderr
    there is nothing yet
    next: testudo
    --- exit 0
    ");
}

#[test]
fn control_sequences_of_a_guest_are_not_obeyed() {
    let desk = Desk::new();
    desk.daemon().world().containers.get_mut("termina").unwrap()[0].distribution =
        "Evil\x1b]0;pwned\x07\x1b[2J\u{202e}".to_owned();
    let shown = desk.run("testudo", &["list"]);
    assert!(!shown.text().contains('\x1b'), "{shown}");
    assert!(
        shown.text().contains("Evil^[]0;pwned^G^[[2J\\u{202e}"),
        "{shown}"
    );
    let info = desk.run("testudo", &["info", "dev"]);
    assert!(!info.text().contains('\x1b'), "{info}");
}

#[test]
fn info_shows_one_container() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["info"]), @r"
    name:      penguin
    vm:        termina
    state:     running
    system:    Debian GNU/Linux 13 (trixie)
    user:      anna
    created:   2026-01-02 03:04 UTC
    addresses: 100.115.93.2
    disk:      12M of its own
    snapshots: 1
    memory:    45M
    processes: 17
    --- exit 0
    ");
}

#[test]
fn a_name_that_does_not_exist_brings_the_nearest_one() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["info", "pengiun"]), @r"
    --- stderr
    error: there is no container pengiun (E-CONTAINER-NOTFOUND)
    hint:  did you mean penguin?
    --- exit 3
    ");
    insta::assert_snapshot!(desk.run("testudo", &["--vm", "termnia", "list"]), @r"
    --- stderr
    error: there is no VM termnia (E-VM-NOTFOUND)
    hint:  did you mean termina?
    --- exit 3
    ");
}

#[test]
fn a_name_that_cannot_be_one_is_refused_with_a_better_one() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["create", "My_Box"]), @r#"
    --- stderr
    error: invalid value 'My_Box' for '<NAME>': container name "My_Box" is not allowed: use lower-case letters, digits and '-', starting with a letter and not ending in '-'; did you mean my-box?

    For more information, try '--help'.
    --- exit 2
    "#);
}

#[test]
fn create_makes_a_container_for_this_user_from_the_base() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["create", "box"]), @r"
    --- stderr
    created container box
    next: testudo shell box
    --- exit 0
    ");
    let (header, files) = desk.daemon().world().made.pop().unwrap();
    assert_eq!((header.source(), files.len()), (ContainerSource::Base, 0));
    assert!(!header.user.unwrap().name.is_empty());
    assert_eq!(
        desk.changes(),
        ["Vms.Start termina", "Containers.Create termina box"]
    );
}

#[test]
fn sources_are_carried_byte_for_byte() {
    let desk = Desk::new();
    // Longer than one chunk, and no multiple of it.
    let rootfs: Vec<u8> = (0..3_000_001_u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(desk.path("work/meta"), "meta").unwrap();
    std::fs::write(desk.path("work/root"), &rootfs).unwrap();
    let arguments = [
        "create",
        "-q",
        "pair",
        "--from-image",
        "meta",
        "root",
        "--no-user",
    ];
    assert_eq!(desk.run("testudo", &arguments).to_string(), "--- exit 0");
    let (header, files) = desk.daemon().world().made.pop().unwrap();
    assert_eq!(
        (header.source(), header.user),
        (ContainerSource::Image, None)
    );
    assert!(
        files == [b"meta".to_vec(), rootfs.clone()],
        "the files differ"
    );

    let shown = desk.feed(
        "testudo",
        &["create", "-q", "--from-rootfs", "-", "piped"],
        &rootfs,
    );
    assert_eq!(shown.to_string(), "--- exit 0");
    let (header, files) = desk.daemon().world().made.pop().unwrap();
    assert_eq!(header.source(), ContainerSource::Rootfs);
    assert!(files == [rootfs], "the file differs");
}

#[test]
fn an_oci_layout_folder_is_sent_as_a_tar() {
    let desk = Desk::new();
    std::fs::create_dir_all(desk.path("work/layout/blobs/sha256")).unwrap();
    std::fs::write(desk.path("work/layout/oci-layout"), "{}").unwrap();
    std::fs::write(desk.path("work/layout/blobs/sha256/abc"), "blob").unwrap();
    let shown = desk.run("testudo", &["create", "-q", "--from-oci", "layout", "oci"]);
    assert_eq!(shown.to_string(), "--- exit 0");
    let (header, files) = desk.daemon().world().made.pop().unwrap();
    assert_eq!(header.source(), ContainerSource::Oci);
    let mut tar = tar::Archive::new(files[0].as_slice());
    let entries = tar.entries().unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "./",
            "blobs",
            "blobs/sha256",
            "blobs/sha256/abc",
            "oci-layout"
        ]
    );

    std::fs::remove_file(desk.path("work/layout/oci-layout")).unwrap();
    insta::assert_snapshot!(desk.run("testudo", &["create", "--from-oci", "layout", "o2"]), @r"
    --- stderr
    error: layout is no OCI image (E-SOURCE)
    cause: the folder holds no file named oci-layout (OCI image layout specification)
    --- exit 1
    ");
}

#[test]
fn a_file_that_is_not_there_is_found_out_before_anything_is_made() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["create", "x", "--from-rootfs", "gone.tar"]), @r"
    --- stderr
    error: cannot read gone.tar (E-FILE)
    cause: No such file or directory (os error 2)
    --- exit 3
    ");
    assert!(desk.daemon().world().made.is_empty());
}

#[test]
fn delete_needs_a_yes_from_somebody() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["delete", "dev"]), @r"
    --- stderr
    error: this needs to be confirmed (E-CONFIRM)
    cause: delete container dev with all its files (12M) and snapshots (1)?
    hint:  to confirm it beforehand: -y
    --- exit 7
    ");
    insta::assert_snapshot!(desk.run("testudo", &["rm", "-y", "dev"]), @r"
    --- stderr
    deleted container dev
    --- exit 0
    ");
    let mut asked = desk.on_terminal("testudo", &["delete", "-f", "penguin"]);
    asked.see("delete container penguin with all its files (12M) and snapshots (1)? [y/N] ");
    asked.type_in("n\n");
    asked.see("cancelled by the user (E-CANCELLED)");
    assert_eq!(asked.end(), 7);
    let mut asked = desk.on_terminal("testudo", &["delete", "-f", "penguin"]);
    asked.see("[y/N] ");
    asked.type_in("yes\n");
    asked.see("deleted container penguin");
    assert_eq!(asked.end(), 0);
    assert!(desk.daemon().world().containers["termina"].is_empty());
}

#[test]
fn stop_and_start_change_the_state() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["stop", "--timeout", "2.5"]), @r"
    --- stderr
    stopped penguin
    --- exit 0
    ");
    insta::assert_snapshot!(desk.run("testudo", &["start", "penguin", "dev"]), @"--- exit 0");
    insta::assert_snapshot!(desk.run("testudo", &["restart", "--kill", "dev"]), @"--- exit 0");
    assert_eq!(
        desk.changes(),
        [
            "Containers.Stop termina penguin 2500 false",
            "Vms.Start termina",
            "Containers.Start termina penguin",
            "Containers.Start termina dev",
            "Vms.Start termina",
            "Containers.Stop termina dev 0 true",
            "Containers.Start termina dev",
        ]
    );
}

#[test]
fn stopping_in_a_vm_that_does_not_run_starts_nothing() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["stop", "--vm", "lab", "x"]), @r"
    --- stderr
    VM lab does not run, nor does what is in it
    --- exit 0
    ");
    assert_eq!(desk.changes(), [""; 0]);
}

#[test]
fn rename_and_copy() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["rename", "dev", "old"]), @r"
    --- stderr
    dev is now old
    --- exit 0
    ");
    insta::assert_snapshot!(desk.run("testudo", &["cp", "old", "new"]), @r"
    --- stderr
    created container new
    next: testudo shell new
    --- exit 0
    ");
    assert_eq!(
        desk.run("testudo", &["ls", "-q"]).text(),
        "old\npenguin\nnew\n"
    );
}

#[test]
fn snapshots() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["snapshot", "create", "dev", "before"]), @r"
    --- stderr
    made snapshot before of dev
    --- exit 0
    ");
    insta::assert_snapshot!(desk.run("testudo", &["snapshot", "list", "dev"]), @r"
    NAME    CREATED
    clean   2026-01-02 03:04 UTC
    before  2026-01-02 03:04 UTC
    --- exit 0
    ");
    insta::assert_snapshot!(desk.run("testudo", &["snapshot", "restore", "dev", "nope"]), @r"
    --- stderr
    error: there is no snapshot nope (E-SNAPSHOT-NOTFOUND)
    hint:  see testudo snapshot list dev
    --- exit 3
    ");
    insta::assert_snapshot!(desk.run("testudo", &["snapshot", "delete", "dev", "clean"]), @r"
    --- stderr
    deleted snapshot clean of dev
    --- exit 0
    ");
    assert_eq!(
        desk.run("testudo", &["snapshot", "ls", "-q", "dev"]).text(),
        "before\n"
    );
}

#[test]
fn export_leaves_whole_files_only() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["export", "dev", "dev.tar.zst"]), @r"
    --- stderr
    exported dev (14B)
    --- exit 0
    ");
    assert_eq!(
        std::fs::read(desk.path("work/dev.tar.zst")).unwrap(),
        b"exported bytes"
    );
    insta::assert_snapshot!(desk.run("testudo", &["export", "dev", "dev.tar.zst"]), @r"
    --- stderr
    error: dev.tar.zst exists (E-FILE-EXISTS)
    hint:  replace it with --force
    --- exit 4
    ");
    insta::assert_snapshot!(desk.run("testudo", &["export", "-f", "dev", "-"]), @r"
    exported bytes--- stderr
    exported dev (14B)
    --- exit 0
    ");
    desk.run("testudo", &["export", "gone", "gone.tar.zst"]);
    let files: Vec<_> = std::fs::read_dir(desk.path("work")).unwrap().collect();
    assert_eq!(files.len(), 1);
}

#[test]
fn import_names_the_container_after_its_file() {
    let desk = Desk::new();
    std::fs::write(desk.path("work/Other_Box.tar.zst"), "x").unwrap();
    insta::assert_snapshot!(desk.run("testudo", &["import", "Other_Box.tar.zst"]), @r"
    --- stderr
    created container other-box
    next: testudo shell other-box
    --- exit 0
    ");
    let (header, files) = desk.daemon().world().made.pop().unwrap();
    assert_eq!(
        (header.source(), header.container.as_str()),
        (ContainerSource::Export, "other-box")
    );
    assert_eq!((header.user, files), (None, vec![b"x".to_vec()]));
    insta::assert_snapshot!(desk.run("testudo", &["import", "-"]), @r"
    --- stderr
    error: the new container has no name (E-NAME)
    hint:  name it: testudo import - NAME
    --- exit 1
    ");
}

#[test]
fn logs_are_raw_in_a_pipe_and_clean_on_a_terminal() {
    let desk = Desk::new();
    desk.daemon().world().log = b"one\r\n\x1b[31mtwo\xff\nlast".to_vec();
    assert_eq!(
        desk.run("testudo", &["logs"]).stdout,
        b"one\r\n\x1b[31mtwo\xff\nlast"
    );
    let mut seen = desk.on_terminal("testudo", &["logs"]);
    seen.see("one\r\n^[[31mtwo\u{fffd}\r\nlast\r\n");
    assert_eq!(seen.end(), 0);
}

#[test]
fn logs_of_one_request_are_picked_from_the_vms() {
    let desk = Desk::new();
    desk.daemon().world().log = b"a request=1-2\nb\nc request=1-2\nd request=1-3\n".to_vec();
    let shown = desk.run("testudo", &["logs", "--request", "1-2"]);
    assert_eq!(shown.text(), "a request=1-2\nc request=1-2\n");
    desk.run("testudo", &["logs", "--console"]);
    assert_eq!(
        desk.changes(),
        [
            "Vms.Logs termina VM_LOG_ALL false",
            "Vms.Logs termina VM_LOG_CONSOLE false"
        ]
    );
}

#[test]
fn df_and_top_show_figures() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.run("testudo", &["df"]), @r"
    NAME             KIND       SIZE  USED  HOST  RECLAIMABLE
    termina          vm         20G   500M  700M  200M
    termina/dev      container  -     12M   -     -
    termina/penguin  container  -     12M   -     -
    lab              vm         20G   -     700M  -
    --- exit 0
    ");
    let names = desk.run("testudo", &["df", "-q"]).to_string();
    assert_eq!(
        names,
        "termina\ntermina/dev\ntermina/penguin\nlab\n--- exit 0"
    );
    insta::assert_snapshot!(desk.run("testudo", &["top"]), @r"
    VM       STATE    HOST-MEM  GUEST-MEM  LOAD  CPU%  MEM%  IO%  PROCS
    termina  running  300M      80M        0.25  1.5   0.5   0.2  31
    lab      stopped  -         -          -     -     -     -    -

    CONTAINER  VM       STATE    MEMORY  DISK  PROCS
    dev        termina  stopped  0B      12M   0
    penguin    termina  running  45M     12M   17
    --- exit 0
    ");
}

#[test]
fn wait_ends_when_a_command_can_be_run_and_fails_in_time() {
    let desk = Desk::new();
    assert_eq!(desk.run("testudo", &["wait"]).to_string(), "--- exit 0");
    assert_eq!(
        desk.run("testudo", &["wait", "--for", "network"])
            .to_string(),
        "--- exit 0"
    );
    assert_eq!(
        desk.run("testudo", &["wait", "--for=agent", "nobody"])
            .to_string(),
        "--- exit 0"
    );
    let late = ["wait", "dev", "--for", "network", "--timeout", "0.2"];
    insta::assert_snapshot!(desk.run("testudo", &late), @r"
    --- stderr
    error: dev is not ready after 0.2 s (E-TIMEOUT)
    cause: it has no address
    --- exit 6
    ");
    let stopped = ["--vm", "lab", "wait", "--timeout", "0.2s"];
    insta::assert_snapshot!(desk.run("testudo", &stopped), @r"
    --- stderr
    error: penguin is not ready after 0.2 s (E-TIMEOUT)
    cause: VM lab does not run
    --- exit 6
    ");
}

#[test]
fn a_refusal_is_printed_once_with_its_log() {
    let desk = Desk::new();
    let fault = Fault::new(
        Kind::Exhausted,
        "E-DISK-FULL",
        "cannot start container penguin",
    )
    .cause("cannot write its configuration")
    .cause("no space left on device")
    .hint("vmc resize termina 40G")
    .log(vec!["btrfs: \x1b[31mfull".to_owned()], "/state/console.log");
    desk.daemon()
        .world()
        .refusals
        .insert("Containers.Start".to_owned(), fault);
    insta::assert_snapshot!(desk.run("testudo", &["start"]), @r"
    --- stderr
    error: cannot start container penguin (E-DISK-FULL)
    cause: cannot write its configuration
    cause: no space left on device
      | btrfs: ^[[31mfull
    log:   /state/console.log
    hint:  vmc resize termina 40G
    --- exit 8
    ");
    insta::assert_snapshot!(desk.run("testudo", &["start", "--json"]), @r#"
    --- stderr
    {"version":1,"type":"error","kind":"exhausted","code":"E-DISK-FULL","message":"cannot start container penguin","causes":["cannot write its configuration","no space left on device"],"hint":"vmc resize termina 40G","log":["btrfs: \u001b[31mfull"],"log_path":"/state/console.log"}
    --- exit 8
    "#);
}

#[test]
fn a_source_that_cannot_be_read_to_its_end_makes_nothing() {
    let desk = Desk::new();
    let folder = std::fs::File::open(desk.folder.path()).unwrap();
    let mut command = desk.command("testudo", &["create", "x", "--from-rootfs", "-"]);
    let shown = crate::desk::Shown::from(command.stdin(folder).output().unwrap());
    insta::assert_snapshot!(shown, @r"
    --- stderr
    error: cannot read stdin (E-FILE)
    cause: Is a directory (os error 21)
    --- exit 1
    ");
    assert!(desk.daemon().world().made.is_empty());
}

#[test]
fn a_refusal_does_not_wait_for_the_input() {
    let desk = Desk::new();
    let fault = Fault::new(Kind::Exists, "E-CONTAINER-EXISTS", "there is a container x");
    desk.daemon()
        .world()
        .refusals
        .insert("Vms.Start".to_owned(), fault);
    let mut child = desk
        .command("testudo", &["create", "x", "--from-rootfs", "-"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let held = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    drop(held);
}

#[test]
fn an_interrupt_leaves_a_question() {
    let desk = Desk::new();
    let mut asked = desk.on_terminal("testudo", &["delete", "-f", "penguin"]);
    asked.see("[y/N] ");
    asked.type_in("\x03");
    assert_eq!(asked.end(), 130);
    assert_eq!(desk.daemon().world().containers["termina"].len(), 2);
}

#[test]
fn a_file_that_is_not_there_starts_nothing() {
    let desk = Desk::empty();
    for line in [
        &["testudo", "import", "none.tar.zst"][..],
        &["testudo", "create", "new", "--from-rootfs", "none.tar"],
        &["vmc", "container", "lab", "new", "--from-oci", "none"],
    ] {
        let shown = desk.run(line[0], &line[1..]);
        assert!(
            shown.stderr.starts_with("error: cannot read none"),
            "{shown}"
        );
    }
    assert_eq!(desk.changes(), [""; 0]);
}
