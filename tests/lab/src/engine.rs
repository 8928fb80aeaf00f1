//! One `crosvm run` under test, on the host side: started with a specification, watched, and gone when dropped.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use spec::control::{Call, Event, Info, Line, Reply, Request};
use spec::end::EngineEnd;
use spec::fd::InheritedFd;
use spec::units::Mib;
use spec::vm::{Console, Device, Function, Kernel, Options, VM_SPEC_VERSION, VmSpec};

use crate::place;

/// In the lab everything is emulated twice; nothing that works takes so long.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A machine that is being described.
pub struct Plan {
    spec: VmSpec,
    descriptors: Vec<OwnedFd>,
    console: UnixStream,
    control: UnixStream,
    /// Changes the text that the engine gets, beyond what the types allow.
    text: fn(String) -> String,
    /// What starts the engine, with arguments.
    starter: Vec<String>,
}

impl Plan {
    /// Describes a machine with one vCPU and 128 MiB that starts `kernel`.
    ///
    /// # Panics
    /// When the host has no descriptors left.
    #[must_use]
    pub fn new(kernel: File) -> Self {
        let (console, console_end) = UnixStream::pair().unwrap();
        let (control, control_end) = UnixStream::pair().unwrap();
        let number = |fd: &OwnedFd| InheritedFd(fd.as_raw_fd());
        let descriptors: Vec<OwnedFd> = vec![kernel.into(), console_end.into(), control_end.into()];
        let spec = VmSpec {
            version: VM_SPEC_VERSION,
            name: "test".to_owned(),
            memory: Mib(128),
            vcpus: 1,
            kernel: Kernel {
                image: number(&descriptors[0]),
                cmdline: String::new(),
                initramfs: None,
            },
            snapshot: None,
            console: Console {
                output: number(&descriptors[1]),
                input: Some(number(&descriptors[1])),
            },
            control: number(&descriptors[2]),
            devices: Vec::new(),
            options: Options::default(),
        };
        Self {
            spec,
            descriptors,
            console,
            control,
            text: |text| text,
            starter: Vec::new(),
        }
    }

    /// Changes the specification's text, to what no specification can be.
    #[must_use]
    pub fn with_text(mut self, change: fn(String) -> String) -> Self {
        self.text = change;
        self
    }

    /// Has the engine started by a program, which gets its command line behind `words`.
    #[must_use]
    pub fn started_by(mut self, words: &[&str]) -> Self {
        self.starter = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Changes the specification at will, also to what is wrong.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut VmSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Adds a device whose daemon has the other end of `socket`.
    #[must_use]
    pub fn device(mut self, name: &str, function: Function, socket: UnixStream) -> Self {
        let socket = OwnedFd::from(socket);
        let number = InheritedFd(socket.as_raw_fd());
        let device = Device {
            name: name.to_owned(),
            socket: number,
            function,
            queue_size: 128,
        };
        self.spec.devices.push(device);
        self.descriptors.push(socket);
        self
    }

    /// Lets the machine go on from `snapshot` instead of starting its kernel.
    #[must_use]
    pub fn go_on_from(mut self, snapshot: File) -> Self {
        let snapshot = OwnedFd::from(snapshot);
        self.spec.snapshot = Some(InheritedFd(snapshot.as_raw_fd()));
        self.descriptors.push(snapshot);
        self
    }

    /// Starts the machine.
    ///
    /// # Panics
    /// When `crosvm` cannot be started at all.
    #[must_use]
    pub fn start(mut self) -> Engine {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let crosvm = place::program("crosvm");
        let mut command = match self.starter.split_first() {
            None => Command::new(crosvm),
            Some((starter, words)) => {
                let mut command = Command::new(starter);
                command.args(words).arg(crosvm);
                command
            }
        };
        command
            .arg("run")
            .arg("--spec-fd")
            .arg(reader.as_raw_fd().to_string());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        self.descriptors.push(reader.into());
        sys::spawn::tie(&mut command, self.descriptors);
        let mut child = command.spawn().unwrap();
        drop(command);
        let text = (self.text)(serde_json::to_string(&self.spec).unwrap());
        // One that is refused need not be read to its end.
        let _not_all_is_read = writer.write_all(text.as_bytes());
        drop(writer);
        let console = Arc::new(Printed::default());
        let (seen, from) = (Arc::clone(&console), self.console.try_clone().unwrap());
        std::thread::spawn(move || seen.collect(from));
        let log = Arc::new(Printed::default());
        let (seen, from) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || seen.collect(from));
        let lines = BufReader::new(self.control.try_clone().unwrap());
        self.control.set_read_timeout(Some(PATIENCE)).unwrap();
        Engine {
            child,
            typed: self.console,
            console,
            log,
            control: self.control,
            lines,
            events: Vec::new(),
            calls: 0,
        }
    }
}

/// What somebody printed so far.
#[derive(Default)]
struct Printed {
    text: Mutex<(Vec<u8>, bool)>,
    more: Condvar,
}

impl Printed {
    fn collect(&self, mut from: impl std::io::Read) {
        let mut bytes = [0; 4096];
        loop {
            let count = from.read(&mut bytes).unwrap_or(0);
            let mut text = self.text.lock().unwrap();
            text.0.extend_from_slice(&bytes[..count]);
            text.1 = count == 0;
            self.more.notify_all();
            if count == 0 {
                return;
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap().0).into_owned()
    }

    /// Waits, for a moment, until nobody can print any more.
    fn wait_for_end(&self) {
        let text = self.text.lock().unwrap();
        let moment = Duration::from_secs(1);
        drop(
            self.more
                .wait_timeout_while(text, moment, |text| !text.1)
                .unwrap(),
        );
    }

    /// Waits until `wanted` was printed behind the first `skip` bytes; returns whether it was.
    fn wait_for(&self, skip: usize, wanted: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.text.lock().unwrap();
        loop {
            if String::from_utf8_lossy(&text.0[skip.min(text.0.len())..]).contains(wanted) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if text.1 || left.is_zero() {
                return false;
            }
            text = self.more.wait_timeout(text, left).unwrap().0;
        }
    }
}

/// A machine that runs.
pub struct Engine {
    child: Child,
    typed: UnixStream,
    console: Arc<Printed>,
    log: Arc<Printed>,
    control: UnixStream,
    lines: BufReader<UnixStream>,
    events: Vec<Event>,
    calls: u64,
}

impl Engine {
    /// Waits until the guest has printed `wanted`.
    ///
    /// # Panics
    /// When it does not.
    pub fn expect(&self, wanted: &str) {
        self.expect_after(0, wanted);
    }

    /// Waits until the guest has printed `wanted` behind the first `skip` bytes of its console.
    ///
    /// # Panics
    /// When it does not.
    pub fn expect_after(&self, skip: usize, wanted: &str) {
        if !self.console.wait_for(skip, wanted) {
            let (console, log) = (self.console.text(), self.log_to_end());
            panic!("no {wanted:?}; console:\n{console}\nlog:\n{log}");
        }
    }

    /// Waits until state or counters are as wanted.
    ///
    /// # Panics
    /// When they do not become so.
    pub fn wait_until(&mut self, wanted: impl Fn(&Info) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let info = self.info();
            if wanted(&info) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{info:?}; console:\n{}",
                self.console.text()
            );
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// Returns what the guest has printed.
    #[must_use]
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// Returns what `crosvm` has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Types on the guest's console.
    ///
    /// # Panics
    /// When the console is closed.
    pub fn type_line(&mut self, line: &str) {
        self.typed
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }

    /// Asks for something and returns the answer.
    ///
    /// # Panics
    /// When there is none.
    pub fn ask(&mut self, request: Request) -> Reply {
        self.ask_with(request, None)
    }

    /// Asks for something, handing a descriptor over, and returns the answer.
    ///
    /// # Panics
    /// When there is none.
    pub fn ask_with(&mut self, request: Request, fd: Option<OwnedFd>) -> Reply {
        self.calls += 1;
        let mut line = serde_json::to_vec(&Call {
            id: self.calls,
            request,
        })
        .unwrap();
        line.push(b'\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let owned: Vec<OwnedFd> = fd.into_iter().collect();
        let borrowed: Vec<_> = owned.iter().map(|fd| fd.as_fd()).collect();
        if !borrowed.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)));
        }
        let flags = SendFlags::NOSIGNAL;
        sendmsg(&self.control, &[IoSlice::new(&line)], &mut ancillary, flags).unwrap();
        loop {
            match self.next_line() {
                Line::Reply { id, reply } => {
                    assert_eq!(id, self.calls);
                    return reply;
                }
                Line::Event { event } => self.events.push(event),
            }
        }
    }

    /// Asks for state and counters.
    ///
    /// # Panics
    /// When the answer is another one.
    pub fn info(&mut self) -> Info {
        match self.ask(Request::Info {}) {
            Reply::Info { info } => info,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for an event.
    ///
    /// # Panics
    /// When it does not come.
    pub fn expect_event(&mut self, wanted: &Event) {
        while !self.events.contains(wanted) {
            match self.next_line() {
                Line::Event { event } => self.events.push(event),
                Line::Reply { .. } => panic!("a reply that nobody asked for"),
            }
        }
        self.events.retain(|event| event != wanted);
    }

    /// Waits until the process has ended and returns how.
    ///
    /// # Panics
    /// When it does not end, or not with one of its own codes.
    #[must_use]
    pub fn end(&mut self) -> EngineEnd {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let code = status.code().unwrap_or(-1);
                let end = EngineEnd::from_code(code);
                return end.unwrap_or_else(|| panic!("{status}; log:\n{}", self.log()));
            }
            let console = self.console.text();
            assert!(
                Instant::now() < deadline,
                "still runs; console:\n{console}\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Returns what `crosvm` has logged, after giving it time to say its last words.
    #[must_use]
    pub fn log_to_end(&self) -> String {
        self.log.wait_for_end();
        self.log.text()
    }

    /// Closes the control socket, as a concierge that dies does.
    ///
    /// # Panics
    /// When it is closed already.
    pub fn close_control(&mut self) {
        self.control.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Returns whether the process still runs.
    ///
    /// # Panics
    /// When it cannot be asked.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Returns the number of the process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    fn next_line(&mut self) -> Line {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line);
        let there = read.is_ok_and(|count| count > 0);
        assert!(
            there,
            "no line; console:\n{}\nlog:\n{}",
            self.console.text(),
            self.log()
        );
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// Returns a file with `bytes` in it, at its beginning.
///
/// # Panics
/// When the host has no room.
#[must_use]
pub fn file(bytes: &[u8]) -> File {
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(fd);
    file.write_all(bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}
