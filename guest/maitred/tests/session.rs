//! Whole sessions of vshd with real processes, pipes and terminals of this machine; the test plays the host.

#![expect(clippy::unwrap_used, reason = "in a test, a failure is the result")]

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wire::proto::vsh_reply::Reply;
use wire::proto::vsh_request::Request;
use wire::proto::{VshReply, VshRequest, VshSetup, VshWindow};
use wire::vsh;

/// Long enough for a loaded machine; nothing here takes a second by itself.
const PATIENCE: Duration = Duration::from_secs(30);

const WINDOW: VshWindow = VshWindow {
    rows: 24,
    columns: 80,
};

/// For what is signalled at any moment: dash loses a signal that comes while it starts a program (its handler does
/// nothing between vfork's return and the next instruction).
const SHELL: &str = "bash";

/// The host's end of a session.
struct Host {
    session: Child,
    stream: UnixStream,
    received: Vec<u8>,
    /// Output so far, for who asks why nothing more comes.
    seen: String,
}

/// What came of a session.
#[derive(Debug, Default)]
struct Done {
    out: Vec<u8>,
    err: Vec<u8>,
    code: u32,
    signal: u32,
    fault: String,
}

impl Done {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

fn setup(argv: &[&str]) -> VshSetup {
    let id = Command::new("id").arg("-un").output().unwrap().stdout;
    VshSetup {
        user: String::from_utf8(id).unwrap().trim().to_owned(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        directory: "/".to_owned(),
        ..VshSetup::default()
    }
}

fn on_terminal(argv: &[&str]) -> VshSetup {
    VshSetup {
        window: Some(WINDOW),
        ..setup(argv)
    }
}

impl Host {
    fn begin(setup: VshSetup) -> Self {
        let mut host = Self::connect();
        host.send(Request::Setup(setup));
        host
    }

    fn connect() -> Self {
        let (stream, theirs) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let session = Command::new(env!("CARGO_BIN_EXE_maitred"))
            .arg("session")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        Self {
            session,
            stream,
            received: Vec::new(),
            seen: String::new(),
        }
    }

    fn send(&mut self, request: Request) {
        let mut frame = Vec::new();
        vsh::encode(
            &VshRequest {
                request: Some(request),
            },
            &mut frame,
        );
        self.stream.write_all(&frame).unwrap();
    }

    fn input(&mut self, bytes: &[u8]) {
        self.send(Request::Stdin(bytes.to_vec()));
    }

    fn reply(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = vsh::decode::<VshReply>(&mut self.received).unwrap() {
                return reply.reply;
            }
            let mut chunk = vec![0; 64 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.received.extend(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("the session says nothing after {:?}: {error}", self.seen),
            }
        }
    }

    /// Reads until the command's output holds `text`.
    fn see(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.reply() {
                Some(Reply::Stdout(bytes)) => {
                    self.seen.push_str(&String::from_utf8_lossy(&bytes));
                    seen.extend(bytes);
                }
                Some(Reply::Started(_)) => {}
                other => panic!(
                    "{other:?} before {text:?}; seen {:?}",
                    String::from_utf8_lossy(&seen)
                ),
            }
            let all = String::from_utf8_lossy(&seen);
            if all.contains(text) {
                return all.into_owned();
            }
        }
    }

    fn done(mut self) -> Done {
        let mut done = Done::default();
        while let Some(reply) = self.reply() {
            match reply {
                Reply::Started(started) => assert!(started.pid > 0),
                Reply::Stdout(bytes) => done.out.extend(bytes),
                Reply::Stderr(bytes) => done.err.extend(bytes),
                Reply::Failed(fault) => done.fault = fault.code,
                Reply::Exit(exit) => (done.code, done.signal) = (exit.code, exit.signal),
            }
        }
        assert!(self.session.wait().unwrap().success());
        done
    }
}

fn run(setup: VshSetup) -> Done {
    Host::begin(setup).done()
}

#[test]
fn streams_stay_apart_and_the_status_comes_back() {
    let done = run(setup(&["sh", "-c", "echo out; echo err >&2; exit 9"]));
    assert_eq!(
        (done.text().as_str(), done.err.as_slice()),
        ("out\n", &b"err\n"[..])
    );
    assert_eq!((done.code, done.signal), (9, 0));
}

#[test]
fn a_signal_s_number_comes_back() {
    let done = run(setup(&["sh", "-c", "kill -9 $$"]));
    assert_eq!((done.code, done.signal), (137, 9));
}

#[test]
fn what_cannot_be_started_is_said_by_code() {
    assert_eq!(
        run(setup(&["no-such-command"])).fault,
        vsh::COMMAND_NOT_FOUND
    );
    assert_eq!(run(setup(&["/etc/passwd"])).fault, vsh::COMMAND_DENIED);
    let lost = VshSetup {
        directory: "/no/such/place".to_owned(),
        ..setup(&["true"])
    };
    assert_eq!(run(lost).fault, "E-COMMAND-DIRECTORY");
    let nobody = VshSetup {
        user: "no-such-user".to_owned(),
        ..setup(&["true"])
    };
    assert_eq!(run(nobody).fault, "E-USER-NOTFOUND");
    let nowhere = VshSetup {
        container: "no-such-container".to_owned(),
        ..setup(&["true"])
    };
    assert_eq!(run(nowhere).fault, "E-CONTAINER-NOTFOUND");
}

#[test]
fn a_session_begins_with_its_setup() {
    let mut host = Host::connect();
    host.input(b"hello");
    assert_eq!(host.done().fault, "E-SESSION");
    let mut host = Host::connect();
    host.stream.write_all(&[0xff; 8]).unwrap();
    assert_eq!(host.done().fault, "E-SESSION");
}

#[test]
fn words_and_variables_arrive_untouched() {
    let mut setup = setup(&[
        "sh",
        "-c",
        "printf '<%s>' \"$@\" \"$X\"",
        "sh",
        "a b",
        "",
        "*",
        "$HOME",
    ]);
    setup.environment.insert("X".to_owned(), "1\n2".to_owned());
    assert_eq!(run(setup).text(), "<a b><><*><$HOME><1\n2>");
}

#[test]
fn a_megabyte_of_any_bytes_passes_both_ways() {
    let bytes: Vec<u8> = (0..1_u32 << 20)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let mut host = Host::begin(setup(&["cat"]));
    let mut writer = host.stream.try_clone().unwrap();
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || {
        for chunk in sent.chunks(vsh::DATA_MAX).chain([&[][..]]) {
            let mut frame = Vec::new();
            let request = Some(Request::Stdin(chunk.to_vec()));
            vsh::encode(&VshRequest { request }, &mut frame);
            writer.write_all(&frame).unwrap();
        }
    });
    let mut got = Vec::new();
    loop {
        match host.reply().unwrap() {
            Reply::Stdout(bytes) => got.extend(bytes),
            Reply::Exit(exit) => break assert_eq!(exit.code, 0),
            Reply::Started(_) => {}
            other => panic!("{other:?}"),
        }
    }
    writing.join().unwrap();
    assert!(got == bytes);
}

#[test]
fn a_host_that_reads_nothing_stops_the_command_and_not_our_memory() {
    let mut host = Host::begin(setup(&["sh", "-c", "yes | head -c 100000000"]));
    host.see("y\n");
    std::thread::sleep(Duration::from_millis(500));
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.session.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kib: u64 = line
        .split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    assert!(kib < 64 << 10, "{line}");
}

#[test]
fn a_terminal_is_one_and_has_its_size() {
    let mut host = Host::begin(on_terminal(&[
        SHELL,
        "-c",
        "tty; stty size; trap 'stty size; exit 4' WINCH; echo ready; while :; do sleep 0.05; done",
    ]));
    let seen = host.see("ready");
    assert!(
        seen.contains("/dev/pts/") && seen.contains("24 80"),
        "{seen}"
    );
    host.send(Request::Window(VshWindow {
        rows: 37,
        columns: 131,
    }));
    host.see("37 131");
    assert_eq!(host.done().code, 4);
}

#[test]
fn control_c_and_signals_reach_the_foreground() {
    let mut host = Host::begin(on_terminal(&[SHELL, "-c", "echo ready; sleep 100"]));
    host.see("ready");
    host.input(b"\x03");
    assert_eq!(host.done().code, 130);
    // An interactive shell gives each command a group of its own: only that is signalled.
    let mut host = Host::begin(on_terminal(&["bash", "--norc", "-i"]));
    host.input(b"PS1='%'; echo rea''dy\n");
    host.see("ready");
    host.input(b"sh -c 'echo 1''2; exec sleep 100'\n");
    host.see("12\r\n");
    host.send(Request::Signal(15));
    host.input(b"echo status=$?\n");
    host.see("status=143");
    host.input(b"exit 5\n");
    assert_eq!(host.done().code, 5);
    let mut host = Host::begin(setup(&[
        SHELL,
        "-c",
        "trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done",
    ]));
    host.see("ready");
    host.send(Request::Signal(10));
    assert_eq!(host.done().code, 6);
}

#[test]
fn the_end_of_input_reaches_a_terminal_too() {
    let mut host = Host::begin(on_terminal(&["cat"]));
    host.input(b"line\n");
    host.see("line\r\nline\r\n");
    host.input(b"");
    assert_eq!(host.done().code, 0);
}

#[test]
fn a_host_that_hangs_up_ends_the_command() {
    for terminal in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("hup");
        let script = format!(
            // bash has something to say about what the signal ended, and nobody to say it to any more.
            "exec 2>/dev/null; trap 'echo > {}; exit' HUP; echo ready; while :; do sleep 0.05; done",
            mark.display()
        );
        let argv = [SHELL, "-c", &script];
        let mut host = Host::begin(if terminal {
            on_terminal(&argv)
        } else {
            setup(&argv)
        });
        host.see("ready");
        host.stream.shutdown(std::net::Shutdown::Both).unwrap();
        let begun = Instant::now();
        while !mark.exists() {
            assert!(begun.elapsed() < PATIENCE, "terminal: {terminal}");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(host.session.wait().unwrap().success());
    }
}

#[test]
fn what_was_started_in_the_background_does_not_hold_the_session() {
    let begun = Instant::now();
    let done = run(setup(&["sh", "-c", "sleep 60 & echo started"]));
    assert_eq!(done.text(), "started\n");
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn no_input_read_is_no_harm() {
    let mut host = Host::begin(setup(&["true"]));
    host.input(&[0; 60_000]);
    host.input(b"");
    assert_eq!(host.done().code, 0);
}
