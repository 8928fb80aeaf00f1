//! Programs under test and around it: where ours are, how others are started, and that none survives its test.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, getuid, kill_process};

/// The user who runs everything when the test is run by root, since sway refuses to be.
const NOBODY: &str = "65534";

/// A program to start in a runtime directory.
#[derive(Debug)]
pub struct Program {
    command: Command,
    log: PathBuf,
}

/// A program that runs until it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

/// Returns one of our own programs, which is built first.
#[must_use]
pub(crate) fn ours(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let folder = std::env::var_os("TESTUDO_WINDOWS_PROGRAMS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| {
        let test = std::env::current_exe().expect("a test knows its own program");
        let folder = test
            .parent()
            .and_then(Path::parent)
            .expect("target/<profile>/deps/<test>");
        BUILT.get_or_init(build);
        folder.to_owned()
    });
    folder.join(name)
}

fn build() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--quiet",
        "--package",
        "sommelier",
        "--package",
        "wayland-hostd",
    ]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.status().expect("cargo starts");
    assert!(status.success(), "sommelier and wayland-hostd do not build");
}

impl Program {
    /// Returns `program` with a runtime directory and nothing else of this test's environment that concerns displays.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>, runtime: &Path) -> Self {
        let mut command = if getuid().is_root() {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"])
                .arg(&program);
            command
        } else {
            Command::new(&program)
        };
        command
            .env("XDG_RUNTIME_DIR", runtime)
            .env("HOME", runtime)
            .env("LC_ALL", "C.UTF-8");
        for name in [
            "DISPLAY",
            "WAYLAND_DISPLAY",
            "WAYLAND_SOCKET",
            "SWAYSOCK",
            "DBUS_SESSION_BUS_ADDRESS",
        ] {
            command.env_remove(name);
        }
        let name = Path::new(program.as_ref())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let log = runtime.join(format!("{name}.{}.log", unique()));
        Self { command, log }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Returns the command itself, for what only some need.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Starts the program; its output goes to a log that a failing test prints.
    ///
    /// # Panics
    /// When it can't be started: the package is missing.
    #[must_use]
    pub fn start(mut self) -> Running {
        let log = File::create(&self.log).expect("the runtime directory is writable");
        self.command
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a log can be shared"))
            .stdout(log);
        let child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        Running {
            child,
            log: self.log,
        }
    }

    /// Runs the program to its end with `input` and returns what it printed.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn run_with(mut self, input: &[u8]) -> Output {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_owned();
        let feeder = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("a child can be waited for");
        let _ = feeder.join();
        output
    }

    /// Runs a program that takes `data` and leaves a process behind to serve it, as wl-copy and xclip do.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn serve(mut self, data: &[u8]) {
        // What stays behind holds whatever output it was given, so a pipe would never end.
        let mut file = tempfile::tempfile().expect("the temporary folder is writable");
        file.write_all(data)
            .and_then(|()| file.rewind())
            .expect("a file of our own");
        self.command
            .stdin(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = self
            .command
            .status()
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        assert!(status.success(), "{:?}: {status}", self.command);
    }

    /// Runs the program to its end and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn output(self) -> Vec<u8> {
        let output = self.run_with(&[]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }
}

impl Running {
    /// Returns the process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the program still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the program without warning and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Returns what the program has printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Tests fail with what everybody said.
            let _ = writeln!(
                std::io::stderr(),
                "--- {}\n{}",
                self.log.display(),
                self.log()
            );
        }
        self.kill();
    }
}

fn unique() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
