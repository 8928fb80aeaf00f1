//! One user with the four programs, a fake daemon and a fake vshd, in a temporary folder.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fakes::concierge::{Concierge, World};
use fakes::vshd::Vshd;
use fixture::Pty;
use tempfile::TempDir;

/// Everything around one test.
pub(crate) struct Desk {
    pub(crate) folder: TempDir,
    daemon: Option<Concierge>,
    pub(crate) vshd: Vshd,
}

/// What a program printed and how it ended.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) status: i32,
}

impl Desk {
    /// With the fake daemon's usual world.
    pub(crate) fn new() -> Self {
        let mut desk = Self::without_daemon();
        let world = World::new(desk.vshd.socket().to_owned());
        desk.start_daemon(world);
        desk
    }

    /// With a daemon that has no VM yet.
    pub(crate) fn empty() -> Self {
        let mut desk = Self::without_daemon();
        let world = World::empty(desk.vshd.socket().to_owned());
        desk.start_daemon(world);
        desk
    }

    /// With a daemon that has no VM yet and lets this time pass between two events of a start.
    pub(crate) fn slow(pace: Duration) -> Self {
        let mut desk = Self::without_daemon();
        let world = World::empty(desk.vshd.socket().to_owned());
        desk.start_daemon(World { pace, ..world });
        desk
    }

    /// Without a daemon.
    pub(crate) fn without_daemon() -> Self {
        // A short name: socket addresses are at most 108 bytes.
        let folder = tempfile::Builder::new().prefix("cli").tempdir().unwrap();
        for name in [
            "bin",
            "run/testudo",
            "home",
            "data",
            "state",
            "config",
            "work",
        ] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        for name in ["testudo", "vmc", "vsh", "crosh"] {
            symlink(
                env!("CARGO_BIN_EXE_testudo"),
                folder.path().join("bin").join(name),
            )
            .unwrap();
        }
        let vshd = Vshd::start(&folder.path().join("run/vsock.sock")).unwrap();
        Self {
            folder,
            daemon: None,
            vshd,
        }
    }

    fn start_daemon(&mut self, world: World) {
        let socket = self.path("run/testudo/concierge.sock");
        self.daemon = Some(Concierge::start(&socket, world).unwrap());
    }

    /// Returns the daemon.
    pub(crate) fn daemon(&self) -> &Concierge {
        self.daemon.as_ref().expect("the desk has a daemon")
    }

    /// Returns the calls that the daemon has seen, questions about what there is left out.
    pub(crate) fn changes(&self) -> Vec<String> {
        let asks = |call: &String| {
            ["Vms.List", "Vms.Info", "Containers.List", "Containers.Info"]
                .iter()
                .any(|ask| call.starts_with(ask))
        };
        self.daemon()
            .world()
            .calls
            .iter()
            .filter(|call| !asks(call))
            .cloned()
            .collect()
    }

    /// Returns a path in the desk's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a command for one of the programs, in an environment of its own.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let program = self.path("bin").join(program);
        self.program(&program.display().to_string(), arguments)
    }

    /// Returns a command for any program, in the same environment.
    pub(crate) fn program(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments);
        self.environment(&mut command);
        command
    }

    fn environment(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("TERM", "xterm")
            .current_dir(self.path("work"));
    }

    /// Runs a program without input.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Shown {
        self.command(program, arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
            .into()
    }

    /// Runs a program with `input` on stdin.
    pub(crate) fn feed(&self, program: &str, arguments: &[&str], input: &[u8]) -> Shown {
        let mut child = self
            .command(program, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A program that ends before it has read everything is that test's subject.
            scope.spawn(move || stdin.write_all(input).ok());
            child.wait_with_output().unwrap().into()
        })
    }

    /// Runs a program on a terminal.
    pub(crate) fn on_terminal(&self, program: &str, arguments: &[&str]) -> Pty {
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(self.path("bin").join(program))
            .args(arguments);
        self.environment(&mut command);
        Pty::start(command)
    }

    /// Runs a line of shell on a terminal, the programs being in its `PATH`.
    pub(crate) fn shell_on_terminal(&self, line: &str) -> Pty {
        let mut command = Command::new("setsid");
        command.args(["--ctty", "sh", "-c", line]);
        self.environment(&mut command);
        command.env(
            "PATH",
            format!("{}:/usr/bin:/bin", self.path("bin").display()),
        );
        Pty::start(command)
    }
}

impl Shown {
    /// Returns stdout as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

impl From<Output> for Shown {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let signal = output.status.signal().unwrap_or(0);
        Self {
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
            status: output.status.code().unwrap_or(-signal),
        }
    }
}

/// What a person would see, with the parts kept apart.
impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.stdout))?;
        if !self.stderr.is_empty() {
            write!(f, "--- stderr\n{}", self.stderr)?;
        }
        write!(f, "--- exit {}", self.status)
    }
}
