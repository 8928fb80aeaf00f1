//! A whole machine in a file: it goes on in another process, with other daemons, as if nothing had happened but that its
//! connections are gone.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use lab::daemon::Daemon;
use lab::engine::PATIENCE;
use lab::place;
use lab::shell::{DISK, Guest, again, disk, scratch};
use spec::control::{Reply, Request};
use spec::device::{DeviceSpec, VsockSpec};
use spec::end::EngineEnd;
use spec::fd::InheritedFd;
use spec::units::Mib;
use spec::vm::Function;

/// Where the guest's program listens (tests/lab/src/bin/peer.rs).
const PEER: &str = "CONNECT 7777\n";

/// Saves the machine and ends it.
fn put_away(guest: &mut Guest) -> File {
    let saved = save(guest);
    assert_eq!(guest.engine.ask(Request::Kill {}), Reply::Done {});
    assert_eq!(guest.engine.end(), EngineEnd::PowerOff);
    saved
}

/// Saves the machine, which then stands still.
fn save(guest: &mut Guest) -> File {
    let saved = tempfile::tempfile().unwrap();
    let snapshot = guest
        .engine
        .ask_with(Request::Snapshot {}, Some(again(&saved).into()));
    assert_eq!(snapshot, Reply::Done {}, "{}", guest.engine.log());
    assert!(guest.engine.info().suspended);
    saved
}

/// A vsock daemon whose sockets lie in `folder`.
fn vsock(folder: &Path) -> (Daemon, UnixStream) {
    let socket = folder.join("vsock.sock");
    let _none_before = std::fs::remove_file(&socket);
    let listener = OwnedFd::from(UnixListener::bind(socket).unwrap());
    let directory = OwnedFd::from(File::open(folder).unwrap());
    let device = VsockSpec {
        listener: InheritedFd(listener.as_raw_fd()),
        directory: InheritedFd(directory.as_raw_fd()),
        guest_cid: 3,
    };
    Daemon::start(DeviceSpec::Vsock(device), vec![listener, directory])
}

/// Connects to the guest's program, and has it send something back.
fn greet(folder: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(folder.join("vsock.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(PEER.as_bytes()).unwrap();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).unwrap();
    }
    stream.write_all(b"!").unwrap();
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"!");
    stream
}

#[test]
fn a_machine_goes_on_in_another_process_with_other_daemons() {
    let file = scratch();
    let (_first, socket) = disk(again(&file), false);
    let (_rng, random) = Daemon::start(DeviceSpec::Rng, Vec::new());
    let mut guest = Guest::start(|plan| {
        let plan = plan.with(|spec| spec.vcpus = 2);
        plan.device("data", DISK, socket)
            .device("rng", Function::Rng {}, random)
    });
    guest.does("head -c 4194304 /dev/urandom >/tmp/a; dd if=/tmp/a of=/dev/vdb bs=64k conv=fsync");
    guest.does("{ (while :; do echo >>/tmp/ticks; sleep 0.2; done) & }");
    let written = guest.hash_of("cat /tmp/a");
    let saved = put_away(&mut guest);
    println!(
        "the snapshot: {} KiB on disk of a machine of 512 MiB",
        std::os::unix::fs::MetadataExt::blocks(&saved.metadata().unwrap()) / 2
    );

    let (_second, socket) = disk(file, false);
    let (_rng, random) = Daemon::start(DeviceSpec::Rng, Vec::new());
    let mut guest = Guest::launch(|plan| {
        let plan = plan.with(|spec| spec.vcpus = 2).go_on_from(saved);
        plan.device("data", DISK, socket)
            .device("rng", Function::Rng {}, random)
    });
    assert_eq!(guest.hash_of("cat /tmp/a"), written, "memory");
    let read = "dd if=/dev/vdb bs=64k count=64 iflag=direct 2>/dev/null";
    assert_eq!(guest.hash_of(read), written, "disk");
    guest.does("dd if=/tmp/a of=/dev/vdb bs=64k seek=64 conv=fsync");
    guest.does("head -c 4096 /dev/hwrng | wc -c");
    guest.does("before=$(wc -l </tmp/ticks); until [ $(wc -l </tmp/ticks) -gt $before ]; do sleep 0.1; done");
    assert!(guest.does("grep -c ^processor /proc/cpuinfo").contains('2'));
    guest.does("taskset 2 true && taskset 1 true");
    assert!(!guest.does("dmesg").contains("soft lockup"));
    guest.engine.type_line("busybox poweroff -f");
    assert_eq!(guest.engine.end(), EngineEnd::PowerOff);
}

#[test]
fn connections_are_reset_and_new_ones_work() {
    let folder = tempfile::tempdir().unwrap();
    let program = File::open(place::program("lab-peer")).unwrap();
    let (_program, peer) = disk(again(&program), true);
    let (mut first, socket) = vsock(folder.path());
    let mut guest = Guest::start(|plan| {
        plan.device("program", DISK, peer)
            .device("vsock", Function::Vsock {}, socket)
    });
    guest.does("dd if=/dev/vdb of=/tmp/peer bs=1M 2>/dev/null; chmod +x /tmp/peer");
    guest.does("{ /tmp/peer & }");
    guest.engine.expect("PEER LISTENS");
    let _talking = greet(folder.path());
    let saved = put_away(&mut guest);
    first.kill();

    let (_program, peer) = disk(program, true);
    let (_second, socket) = vsock(folder.path());
    let guest = Guest::launch(|plan| {
        plan.device("program", DISK, peer)
            .device("vsock", Function::Vsock {}, socket)
            .go_on_from(saved)
    });
    guest.engine.expect("PEER LOST");
    greet(folder.path());
    guest.engine.expect("PEER CLOSED");
    // A reader that waits hears of the reset; one between two reads hears that nobody is there (Linux, af_vsock.c).
    let told = guest.engine.console();
    let words = ["PEER LOST ConnectionReset", "PEER LOST NotConnected"];
    assert!(words.iter().any(|word| told.contains(word)), "{told}");
}

#[test]
fn a_machine_that_was_saved_can_also_just_go_on() {
    let file = scratch();
    let (_disk, socket) = disk(again(&file), false);
    let mut guest = Guest::start(|plan| plan.device("data", DISK, socket));
    guest.does("head -c 4194304 /dev/urandom >/tmp/a");
    for offset in [0, 64] {
        save(&mut guest);
        assert_eq!(guest.engine.ask(Request::Resume {}), Reply::Done {});
        guest.does(&format!(
            "dd if=/tmp/a of=/dev/vdb bs=64k seek={offset} conv=fsync"
        ));
    }
    let written = guest.hash_of("cat /tmp/a");
    let read = "dd if=/dev/vdb bs=64k count=64 skip=64 iflag=direct 2>/dev/null";
    assert_eq!(guest.hash_of(read), written);
    assert_eq!(
        guest.engine.ask(Request::Balloon { size: Mib(64) }),
        Reply::Done {}
    );
    guest.engine.wait_until(|info| info.ballooned == Mib(64));
}

#[test]
fn a_snapshot_of_another_machine_is_refused() {
    let mut guest = Guest::start(|plan| plan);
    let saved = put_away(&mut guest);
    let cut = || {
        let copy = tempfile::tempfile().unwrap();
        let mut description = vec![0; 1 << 20];
        std::os::unix::fs::FileExt::read_exact_at(&saved, &mut description, 0).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&copy, &description, 0).unwrap();
        copy
    };
    let cases: [(Guest, &str); 4] = [
        (
            Guest::launch(|plan| {
                plan.with(|spec| spec.memory = Mib(256))
                    .go_on_from(again(&saved))
            }),
            "of a machine with 512 MiB",
        ),
        (
            Guest::launch(|plan| {
                plan.with(|spec| spec.options.give_back = false)
                    .go_on_from(again(&saved))
            }),
            "and 3 devices",
        ),
        (
            Guest::launch(|plan| plan.go_on_from(scratch())),
            "the file is no snapshot",
        ),
        (Guest::launch(|plan| plan.go_on_from(cut())), "bytes"),
    ];
    for (mut guest, said) in cases {
        assert_eq!(
            guest.engine.end(),
            EngineEnd::Snapshot,
            "{}",
            guest.engine.log()
        );
        let log = guest.engine.log_to_end();
        assert!(log.contains(said), "no {said:?} in {log}");
        assert_eq!(log.matches("ERROR").count(), 1, "{log}");
    }
}
