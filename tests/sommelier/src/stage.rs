//! A VM without a VM: the host end in its jail and the container side, on one machine.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use serde_json::{Value, json};

use crate::clock::soon;
use crate::programs::{Program, Running, ours};
use crate::screen::{Screen, give_away};

/// How the two ends are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Bytes only, as over vsock.
    Stream,
    /// Bytes packed with LZ4.
    Packed,
    /// With descriptors.
    Direct,
}

/// What a stage is made with.
#[derive(Debug)]
pub struct Options {
    /// How the ends are joined.
    pub link: Link,
    /// The VM's policy.
    pub policy: Value,
    /// The name of the compositor's socket; without it, the screen's own.
    pub compositor: Option<&'static str>,
    /// X pixels for each unit of the screen; without it, as many as the screen has.
    pub scale: Option<&'static str>,
}

/// Both ends.
#[derive(Debug)]
pub struct Stage {
    /// The host end.
    pub hostd: Running,
    /// The container side.
    pub sommelier: Running,
    /// The socket that stands for the VM's vsock device.
    pub link: PathBuf,
    runtime: PathBuf,
    x_display: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            link: Link::Stream,
            policy: json!({}),
            compositor: None,
            scale: None,
        }
    }
}

impl Stage {
    /// Starts both ends for windows on `screen`.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    pub fn new(screen: &Screen, options: &Options) -> Self {
        let runtime = screen.runtime().to_owned();
        let link = runtime.join("vsock.sock_7781");
        // A stage before this one on the same screen leaves its sockets behind, as a killed program does.
        for stale in [&link, &runtime.join("wayland-vm")] {
            let _ = std::fs::remove_file(stale);
        }
        let compositor = runtime.join(options.compositor.unwrap_or(&screen.display));
        let hostd = start_hostd(&runtime, &compositor, &link, options);
        let x_display = next_display();
        let form = if options.link == Link::Direct {
            "direct"
        } else {
            "unix"
        };
        let mut sommelier = Program::new(ours("sommelier"), &runtime)
            .args([
                "--host",
                &format!("{form}:{}", link.display()),
                "--socket",
                "wayland-vm",
            ])
            .args(["--display", &x_display.to_string()])
            .env("TESTUDO_LOG", "debug");
        if options.link == Link::Packed {
            sommelier = sommelier.args(["--compress"]);
        }
        if let Some(scale) = options.scale {
            sommelier = sommelier.args(["--scale", scale]);
        }
        if let Some(server) = std::env::var_os("TESTUDO_WINDOWS_XWAYLAND") {
            sommelier = sommelier.args(["--xwayland"]).args([server]);
        }
        let sommelier = sommelier.start();
        let socket = runtime.join("wayland-vm");
        soon("sommelier's socket", || UnixStream::connect(&socket).ok());
        Self {
            hostd,
            sommelier,
            link,
            runtime,
            x_display,
        }
    }

    /// Lets the windows of programs that come from now on go to the compositor with this socket in the runtime directory.
    ///
    /// # Panics
    /// When there is no such socket.
    pub fn turn_to(&self, compositor: &str) {
        let place = self.runtime.join("display/wayland");
        std::fs::remove_file(&place).expect("it was made with the stage");
        std::fs::hard_link(self.runtime.join(compositor), place).expect("a socket of ours");
    }

    /// Returns a program of the container.
    #[must_use]
    pub fn program(&self, name: &str) -> Program {
        Program::new(name, &self.runtime)
            .env("WAYLAND_DISPLAY", "wayland-vm")
            .env("DISPLAY", format!(":{}", self.x_display))
            .env("GSK_RENDERER", "cairo")
    }
}

/// Returns the number of an X display that no other test of this machine has: these names are shared.
fn next_display() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    100 + std::process::id() % 4_000 * 16 + NEXT.fetch_add(1, Ordering::Relaxed)
}

fn start_hostd(runtime: &Path, compositor: &Path, link: &Path, options: &Options) -> Running {
    let directory = fresh_directory(runtime);
    std::fs::hard_link(compositor, directory.join("wayland"))
        .expect("a socket can have a second name in its own file system");
    let listener = UnixListener::bind(link).expect("the runtime directory is writable");
    give_away(link);
    let open = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&directory, open, Mode::empty()).expect("just made");
    let listener = OwnedFd::from(listener);
    let message = memfd_create("spec", MemfdFlags::CLOEXEC).expect("memory");
    let spec = json!({
        "vm": "penguin",
        "listener": listener.as_raw_fd(),
        "directory": directory.as_raw_fd(),
        "compositor": "wayland",
        "direct": options.link == Link::Direct,
        "policy": options.policy,
    });
    rustix::io::pwrite(&message, spec.to_string().as_bytes(), 0).expect("memory");
    let program = Program::new(ours("wayland-hostd"), runtime)
        .args(["--spec-fd", &message.as_raw_fd().to_string()])
        .env("TESTUDO_LOG", "info");
    for fd in [&listener, &directory, &message] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).expect("our own descriptors");
    }
    let hostd = program.start();
    soon("the host end", || {
        hostd.log().contains("windows are served").then_some(())
    });
    hostd
}

fn fresh_directory(runtime: &Path) -> PathBuf {
    let directory = runtime.join("display");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir(&directory).expect("the runtime directory is writable");
    give_away(&directory);
    directory
}
