//! `crosvm device`, the program: every device does its work inside its jail, and every wrong start ends in one line.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails where it stands"
)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fakes::driver::{Driver, Wishes};
use fakes::ring::{DriverRing, Piece};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use sys::inherited::Kind;

/// Starts a daemon with `message`, in which each `$n` stands for the number of descriptor n.
fn start(kind: &str, message: &str, descriptors: Vec<OwnedFd>) -> Child {
    let crosvm = Command::new(env!("CARGO_BIN_EXE_crosvm"));
    start_by(crosvm, kind, message, descriptors)
}

/// The same with a command that takes the daemon's arguments.
fn start_by(mut command: Command, kind: &str, message: &str, descriptors: Vec<OwnedFd>) -> Child {
    let mut text = message.to_owned();
    for (position, descriptor) in descriptors.iter().enumerate() {
        text = text.replace(&format!("${position}"), &descriptor.as_raw_fd().to_string());
    }
    let mut spec = File::from(rustix::fs::memfd_create("spec", MemfdFlags::CLOEXEC).unwrap());
    spec.write_all(text.as_bytes()).unwrap();
    spec.rewind().unwrap();
    command.args(["device", kind, "--spec-fd", &spec.as_raw_fd().to_string()]);
    command.stderr(Stdio::piped());
    let mut all = descriptors;
    all.push(spec.into());
    sys::spawn::tie(&mut command, all);
    command.spawn().unwrap()
}

/// Waits for the end; returns the exit status and the log, without the line that a kernel without user namespaces
/// is the reason for.
fn end(mut child: Child) -> (i32, String) {
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    let lines = log
        .lines()
        .filter(|line| !line.contains("no namespaces of its own"));
    let log = lines.map(|line| format!("{line}\n")).collect();
    (child.wait().unwrap().code().unwrap(), log)
}

fn refused(kind: &str, message: &str, descriptors: Vec<OwnedFd>) -> (i32, String) {
    let (code, log) = end(start(kind, message, descriptors));
    assert_eq!(log.lines().count(), 1, "{log}");
    (code, log)
}

fn drive(socket: UnixStream, queues: usize) -> Driver {
    Driver::new(
        socket,
        Wishes {
            queues,
            size: 128,
            features: u64::MAX,
        },
    )
}

#[test]
fn rng_fills_and_ends_with_its_engine() {
    let (front, back) = UnixStream::pair().unwrap();
    let child = start(
        "rng",
        r#"{"vhost":{"connected":$0},"device":"rng"}"#,
        vec![back.into()],
    );
    let mut driver = drive(front, 1);
    let ring = &mut driver.rings[0];
    let room = ring.room(64);
    ring.offer(&[room]).unwrap();
    ring.kick();
    assert_eq!(ring.wait().1, 64);
    assert_ne!(ring.read(room.address, 64), [0; 64]);
    drop(driver);
    assert_eq!(end(child), (0, String::new()));
}

#[test]
fn where_namespaces_are_forbidden_a_daemon_says_so_and_works() {
    let (front, back) = UnixStream::pair().unwrap();
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "sh", "-c", forbid])
        .arg(env!("CARGO_BIN_EXE_crosvm"));
    let message = r#"{"vhost":{"connected":$0},"device":"rng"}"#;
    let mut child = start_by(command, "rng", message, vec![back.into()]);
    let mut driver = drive(front, 1);
    let ring = &mut driver.rings[0];
    let room = ring.room(64);
    ring.offer(&[room]).unwrap();
    ring.kick();
    assert_eq!(ring.wait().1, 64);
    drop(driver);
    let mut log = String::new();
    let said = child.stderr.as_mut().unwrap();
    said.read_to_string(&mut log).unwrap();
    assert!(log.contains("no namespaces of its own"), "{log}");
    assert_eq!(end(child).0, 0);
}

#[test]
fn daemon_serves_who_connects_to_its_listener() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("s")).unwrap();
    let child = start(
        "rng",
        r#"{"vhost":{"listening":$0},"device":"rng"}"#,
        vec![listener.into()],
    );
    let path = directory.path().join("s");
    let mut driver = drive(UnixStream::connect(&path).unwrap(), 1);
    let ring = &mut driver.rings[0];
    let room = ring.room(8);
    ring.offer(&[room]).unwrap();
    ring.kick();
    assert_eq!(ring.wait().1, 8);
    // The keeper lets go of the listener in its own time.
    let deadline = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(&path).is_ok() {
        assert!(
            Instant::now() < deadline,
            "the door stays open behind the engine"
        );
    }
    drop(driver);
    assert_eq!(end(child).0, 0);
}

#[test]
fn vsock_connects_both_ways_in_its_jail() {
    let directory = tempfile::tempdir().unwrap();
    let door = directory.path().join("vsock.sock");
    let listener = UnixListener::bind(&door).unwrap();
    let service = UnixListener::bind(directory.path().join("vsock.sock_5")).unwrap();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, directory.path(), flags, Mode::empty()).unwrap();
    let (front, back) = UnixStream::pair().unwrap();
    let message = r#"{"vhost":{"connected":$0},"device":{"vsock":{"listener":$1,"directory":$2,"guest_cid":3}}}"#;
    let child = start("vsock", message, vec![back.into(), listener.into(), opened]);
    let mut driver = drive(front, 3);
    let rooms: Vec<Piece> = (0..4).map(|_| driver.rings[0].room(4096)).collect();
    for room in &rooms {
        driver.rings[0].offer(&[*room]).unwrap();
    }
    let mut host = UnixStream::connect(&door).unwrap();
    host.write_all(b"CONNECT 8888\n").unwrap();
    assert_eq!(driver.rings[0].wait().1, 44);
    let request = driver.rings[0].read(rooms[0].address, 44);
    assert_eq!(request[20..24], 8888_u32.to_le_bytes());
    // The same header the other way round is the guest's answer; then the guest connects out.
    let packet = |guest_port: &[u8], host_port: &[u8], operation: u8| {
        let start: [&[u8]; 4] = [
            &3_u64.to_le_bytes(),
            &2_u64.to_le_bytes(),
            guest_port,
            host_port,
        ];
        let rest: [&[u8]; 2] = [
            &[0, 0, 0, 0, 1, 0, operation, 0, 0, 0, 0, 0],
            &[0, 0, 1, 0, 0, 0, 0, 0],
        ];
        [start.concat(), rest.concat()].concat()
    };
    let answer = packet(&request[20..24], &request[16..20], 2);
    let call = packet(&1000_u32.to_le_bytes(), &5_u32.to_le_bytes(), 1);
    for bytes in [answer, call] {
        let piece = driver.rings[1].store(&bytes);
        driver.rings[1].offer(&[piece]).unwrap();
        driver.rings[1].kick();
        driver.rings[1].wait();
    }
    let mut line = [0; 3];
    host.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"OK ");
    service.accept().unwrap();
    assert_eq!(driver.rings[0].wait().1, 44);
    assert_eq!(
        driver.rings[0].read(rooms[1].address + 30, 2),
        [2, 0],
        "the guest's call is answered"
    );
    drop(driver);
    assert_eq!(end(child), (0, String::new()));
}

#[test]
fn net_carries_frames_in_its_jail() {
    let (socket, mut passt) = UnixStream::pair().unwrap();
    let (front, back) = UnixStream::pair().unwrap();
    let message = r#"{"vhost":{"connected":$0},"device":{"net":{"backend":{"stream":$1},"mac":"52:54:00:00:00:01"}}}"#;
    let child = start("net", message, vec![back.into(), socket.into()]);
    let mut driver = drive(front, 2);
    let mut arp = [6; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    let out = driver.rings[1].store(&[[0; 12].as_slice(), &arp].concat());
    driver.rings[1].offer(&[out]).unwrap();
    driver.rings[1].kick();
    let mut frame = [0; 64];
    passt
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    passt.read_exact(&mut frame).unwrap();
    assert_eq!(frame[4..], arp);
    let room = driver.rings[0].room(2048);
    driver.rings[0].offer(&[room]).unwrap();
    driver.rings[0].kick();
    passt.write_all(&frame).unwrap();
    assert_eq!(driver.rings[0].wait().1, 72);
    drop(passt);
    driver.rings[1].wait();
    drop(driver);
    let (code, log) = end(child);
    assert_eq!((code, log.contains("the link is down")), (0, true), "{log}");
}

/// Makes a TAP device with an address, and goes on as the program that it is told with the device's descriptor in `TAP`.
const WITH_TAP: &str = r#"
    $^F = 255;
    open(T, "+<", "/dev/net/tun") or die "/dev/net/tun: $!";
    # TUNSETIFF with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR.
    my $request = pack("a16 S x22", "t0", 0x5002);
    ioctl(T, 0x400454ca, $request) or die "TUNSETIFF: $!";
    system("ip address add 10.9.0.1/24 dev t0 && ip link set t0 up") == 0 or die "ip";
    $ENV{TAP} = fileno(T);
    exec @ARGV;
"#;

#[test]
fn net_carries_frames_of_a_tap_device_in_its_jail() {
    let Ok(tap) = std::env::var("TAP") else {
        // Once more, in a network of its own.
        let mut again = Command::new("unshare");
        again.args(["--user", "--map-root-user", "--net", "perl", "-e", WITH_TAP]);
        again.arg(std::env::current_exe().unwrap());
        again.args(["--exact", "net_carries_frames_of_a_tap_device_in_its_jail"]);
        let output = again.output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    };
    let tap = sys::inherited::take(tap.parse().unwrap(), Kind::Device).unwrap();
    let (front, back) = UnixStream::pair().unwrap();
    let message = r#"{"vhost":{"connected":$0},"device":{"net":{"backend":{"tap":$1},"mac":"52:54:00:00:00:01"}}}"#;
    let child = start("net", message, vec![back.into(), tap]);
    let mut driver = drive(front, 2);
    // Who has 10.9.0.1? Tell 10.9.0.2.
    let guest = [0x52, 0x54, 0, 0, 0, 1];
    let question = [
        &[0; 12][..],
        &[0xff; 6],
        &guest,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &guest,
        &[10, 9, 0, 2],
        &[0; 6],
        &[10, 9, 0, 1],
    ];
    let question = driver.rings[1].store(&question.concat());
    driver.rings[1].offer(&[question]).unwrap();
    driver.rings[1].kick();
    // The host's kernel says other things too, when a device has just come up.
    let answered = (0..64).any(|_| {
        let ring = &mut driver.rings[0];
        let room = ring.room(70_000);
        ring.offer(&[room]).unwrap();
        ring.kick();
        let length = ring.wait().1 as usize;
        let frame = ring.read(room.address, length).split_off(12);
        let is_answer = frame[..6] == guest && frame[12..14] == [8, 6] && frame[20..22] == [0, 2];
        is_answer && frame[28..32] == [10, 9, 0, 1]
    });
    assert!(
        answered,
        "the host's kernel did not say who has its address"
    );
    driver.rings[1].wait();
    drop(driver);
    assert_eq!(end(child), (0, String::new()));
}

#[test]
fn block_does_every_request_in_its_jail() {
    let image = tempfile::tempfile().unwrap();
    image.set_len(1 << 20).unwrap();
    every_request("raw", &image, true);
    let mut byte = [0];
    image.read_exact_at(&mut byte, 8191).unwrap();
    assert_eq!(byte, [9]);
}

#[test]
fn block_does_every_request_on_qcow2_in_its_jail() {
    let mut image = tempfile::tempfile().unwrap();
    image
        .write_all(&fakes::qcow2::empty(1 << 20, None))
        .unwrap();
    // A discard of less than a cluster changes nothing there.
    every_request("qcow2", &image, false);
}

/// Makes each request of a disk of 1 MiB; a discard of 4 KiB makes zeroes if `discards_zeroes`.
fn every_request(format: &str, image: &File, discards_zeroes: bool) {
    let (front, back) = UnixStream::pair().unwrap();
    let message = r#"{"vhost":{"connected":$0},"device":{"block":{"image":$1,"format":"FORMAT","serial":"s","queues":2}}}"#;
    let descriptors = vec![back.into(), image.try_clone().unwrap().into()];
    let child = start("block", &message.replace("FORMAT", format), descriptors);
    let mut driver = drive(front, 2);
    let mut ask = |kind: u32, data: &[u8], read: u32| {
        let ring = &mut driver.rings[1];
        let question = ring.store(&[&kind.to_le_bytes(), [0; 12].as_slice(), data].concat());
        let answer = ring.room(read + 1);
        ring.offer(&[question, answer]).unwrap();
        ring.kick();
        ring.wait();
        ring.read(answer.address, read as usize + 1)
    };
    let range = [[0; 8].as_slice(), &8_u32.to_le_bytes(), &[0; 4]].concat();
    assert_eq!(ask(1, &[9; 8192], 0), [0], "write");
    assert_eq!(ask(4, &[], 0), [0], "flush");
    assert_eq!(ask(11, &range, 0), [0], "discard");
    let first = ask(0, &[], 4096)[0];
    assert_eq!(first, if discards_zeroes { 0 } else { 9 }, "discarded");
    assert_eq!(ask(13, &range, 0), [0], "zeroes");
    assert_eq!(ask(8, &[], 20)[20], 0, "serial");
    // Several at once, which the daemon may do by io_uring.
    let ring = &mut driver.rings[1];
    let question = ring.store(&[0; 16]);
    let answers: Vec<Piece> = (0..32).map(|_| ring.room(8193)).collect();
    for answer in &answers {
        ring.offer(&[question, *answer]).unwrap();
    }
    ring.kick();
    for _ in &answers {
        assert_eq!(ring.wait().1, 8193);
    }
    for answer in answers {
        let read = ring.read(answer.address, 8193);
        assert!(read[..4096] == [0; 4096] && read[4096..8192] == [9; 4096] && read[8192] == 0);
    }
    assert_eq!(driver.config(8), 2048_u64.to_le_bytes());
    drop(driver);
    assert_eq!(end(child), (0, String::new()));
}

/// Requests of either kind at a time, and bytes of each.
const AT_ONCE: u64 = 16;
const PIECE: usize = 1 << 20;

/// A disk of which one half is written while the other is read.
fn half_and_half() -> File {
    let image = tempfile::tempfile().unwrap();
    // A hole would be read without waiting.
    let all = vec![0xdd; 2 * AT_ONCE as usize * PIECE];
    image.write_all_at(&all, 0).unwrap();
    image.sync_data().unwrap();
    image
}

/// Reads and writes by turns, all reads into `target` and all writes from `data`.
fn reads_and_writes(ring: &mut DriverRing, target: Piece, data: Piece) -> Vec<[Piece; 3]> {
    let header = |kind: u32, number: u64| {
        let sector = number * PIECE as u64 / 512;
        [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
    };
    let mut requests = Vec::new();
    for number in 0..AT_ONCE {
        let read = ring.store(&header(0, AT_ONCE + number));
        requests.push([read, target, ring.room(1)]);
        let write = ring.store(&header(1, number));
        requests.push([write, data, ring.room(1)]);
    }
    requests
}

/// A daemon returns what it can before what has to wait, so that where its rings end does not say what was left.
#[test]
fn no_request_is_lost_or_returned_twice_when_the_daemon_is_killed() {
    let image = half_and_half();
    let daemon = || {
        let (front, back) = UnixStream::pair().unwrap();
        let message = r#"{"vhost":{"connected":$0},"device":{"block":{"image":$1,"format":"raw","serial":"s","queues":1}}}"#;
        let descriptors = vec![back.into(), image.try_clone().unwrap().into()];
        (front, start("block", message, descriptors))
    };
    let (front, mut child) = daemon();
    let mut driver = drive(front, 1);
    driver.keep_in_flight();
    let ring = &mut driver.rings[0];
    let (target, mut data) = (ring.room(PIECE as u32), ring.room(PIECE as u32));
    data.writable = false;
    let requests = reads_and_writes(ring, target, data);
    let mut done = 0_u16;
    for round in 1..=12 {
        let not_cached = rustix::fs::Advice::DontNeed;
        rustix::fs::fadvise(&image, AT_ONCE * PIECE as u64, None, not_cached).unwrap();
        let ring = &mut driver.rings[0];
        ring.write(data.address, &vec![round; PIECE]);
        let mut out = BTreeSet::new();
        for request in &requests {
            ring.write(request[2].address, &[0xee]);
            out.insert(ring.offer(request).unwrap());
        }
        ring.kick();
        for _ in 0..round {
            assert!(out.remove(&ring.wait().0), "round {round}: twice");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let (front, next) = daemon();
        child = next;
        driver.replace(front);
        let ring = &mut driver.rings[0];
        while !out.is_empty() {
            assert!(out.remove(&ring.wait().0), "round {round}: twice");
        }
        done += requests.len() as u16;
        assert_eq!((ring.take(), ring.returned()), (None, done));
        let statuses = requests.iter().map(|request| request[2]);
        assert!(
            statuses
                .map(|status| ring.read(status.address, 1))
                .all(|status| status == [0])
        );
        assert!(ring.read(target.address, PIECE) == [0xdd; PIECE]);
        let mut written = vec![0; AT_ONCE as usize * PIECE];
        image.read_exact_at(&mut written, 0).unwrap();
        assert!(written.iter().all(|byte| *byte == round), "round {round}");
    }
    drop(driver);
    assert_eq!(end(child), (0, String::new()));
}

#[test]
fn wrong_descriptor_is_named() {
    let file = tempfile::tempfile().unwrap();
    let (code, log) = refused(
        "rng",
        r#"{"vhost":{"connected":$0},"device":"rng"}"#,
        vec![file.into()],
    );
    assert_eq!(code, 2);
    assert!(
        log.contains("is not a connected Unix stream socket"),
        "{log}"
    );
    let (code, log) = refused(
        "rng",
        r#"{"vhost":{"connected":900},"device":"rng"}"#,
        vec![],
    );
    assert_eq!(code, 2);
    assert!(log.contains("cannot inspect descriptor 900"), "{log}");
}

#[test]
fn wrong_message_is_explained() {
    let (code, log) = refused("rng", "{", vec![]);
    assert_eq!(
        (
            code,
            log.contains("cannot understand the device specification")
        ),
        (2, true),
        "{log}"
    );
    let (code, log) = refused("net", r#"{"vhost":{"connected":9},"device":"rng"}"#, vec![]);
    assert_eq!(
        (code, log.contains("is for device rng, not net")),
        (2, true),
        "{log}"
    );
}

#[test]
fn front_end_that_breaks_the_protocol_ends_the_daemon() {
    let (mut front, back) = UnixStream::pair().unwrap();
    let child = start(
        "rng",
        r#"{"vhost":{"connected":$0},"device":"rng"}"#,
        vec![back.into()],
    );
    front.write_all(&[0xff; 12]).unwrap();
    let (code, log) = end(child);
    assert_eq!(
        (code, log.contains("cannot serve the front end's request")),
        (1, true),
        "{log}"
    );
}
