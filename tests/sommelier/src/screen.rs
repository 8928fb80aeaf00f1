//! A headless screen: sway without any device, what is on it, and fingers to use it with.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rustix::process::getuid;
use serde_json::Value;

use crate::clock::{eventually, soon};
use crate::pointer::{Button, Pointer};
use crate::programs::{Program, Running};

const CONFIG: &str = "output HEADLESS-1 resolution 1280x800\noutput * bg #203040 solid_color\ndefault_border none\n\
    focus_follows_mouse no\nxwayland disable\n";

/// Names a folder, writable by whoever runs the suite, in which pictures are kept.
const PICTURES: &str = "TESTUDO_PICTURES";

/// The user and group of `nobody`.
const NOBODY: u32 = 65534;

/// The screen's size.
const SIZE: (u32, u32) = (1280, 800);

/// The name of weston's socket in the runtime directory.
pub const WESTON: &str = "wayland-weston";

/// A compositor with one screen of 1280 by 800.
#[derive(Debug)]
pub struct Screen {
    /// The compositor.
    pub sway: Running,
    /// Its socket's name.
    pub display: String,
    ipc: PathBuf,
    runtime: PathBuf,
    /// The runtime directory, if it is not somebody else's.
    own: Option<tempfile::TempDir>,
    pointer: Pointer,
    /// Keeps a keyboard on the seat: without one nothing has the focus.
    _keyboard: Running,
}

impl Screen {
    /// Starts a compositor in a runtime directory of its own.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn new() -> Self {
        let runtime = tempfile::Builder::new()
            .prefix("windows")
            .tempdir()
            .expect("/tmp is writable");
        std::fs::set_permissions(runtime.path(), std::fs::Permissions::from_mode(0o700))
            .expect("our own directory");
        give_away(runtime.path());
        let mut screen = Self::in_runtime(runtime.path());
        screen.own = Some(runtime);
        screen
    }

    /// Starts a compositor in a user's runtime directory.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn in_runtime(runtime: &Path) -> Self {
        let runtime = runtime.to_owned();
        let config = runtime.join("sway.config");
        std::fs::write(&config, CONFIG).expect("the runtime directory is writable");
        let sway = Program::new("sway", &runtime)
            .args(["-c"])
            .args([&config])
            .env("WLR_BACKENDS", "headless")
            .env("WLR_RENDERER", "pixman")
            .env("WLR_LIBINPUT_NO_DEVICES", "1")
            .start();
        let find = |start: &str| {
            let names = std::fs::read_dir(&runtime)
                .ok()?
                .flatten()
                .map(|entry| entry.file_name());
            let mut names = names.filter_map(|name| name.into_string().ok());
            names.find(|name| name.starts_with(start) && !name.ends_with(".lock"))
        };
        let display = soon("a Wayland socket", || find("wayland-"));
        let ipc = runtime.join(soon("sway's control socket", || find("sway-ipc")));
        let pointer = Pointer::connect(&runtime.join(&display), SIZE)
            .unwrap_or_else(|error| panic!("no mouse: {error}"));
        let keyboard = Program::new("wtype", &runtime)
            .env("WAYLAND_DISPLAY", &display)
            .args(["-s", "600000"])
            .start();
        Self {
            sway,
            display,
            ipc,
            runtime,
            own: None,
            pointer,
            _keyboard: keyboard,
        }
    }

    /// Returns the runtime directory.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Returns a program of the host.
    #[must_use]
    pub fn program(&self, name: &str) -> Program {
        Program::new(name, self.runtime()).env("WAYLAND_DISPLAY", &self.display)
    }

    /// Starts a compositor of another family on a screen of its own of 1920 by 1080, without keyboard and mouse; its socket
    /// is [`WESTON`]. Other than sway it says on a headless screen when a picture was shown.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn headless_weston(&self) -> Running {
        let weston = self
            .start_weston()
            // The kiosk shows nothing on a screen without a seat.
            .args(["--backend=headless-backend.so", "--shell=desktop-shell.so"])
            .args(["--width=1920", "--height=1080"])
            .start();
        let socket = self.runtime.join(WESTON);
        eventually("weston's socket", || socket.exists());
        weston
    }

    fn start_weston(&self) -> Program {
        self.program("weston")
            .args(["--use-pixman", "--no-config", "--idle-time=0"])
            .args([format!("--socket={WESTON}")])
    }

    /// Starts a compositor of another family in a window that fills the screen; its socket is [`WESTON`].
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn weston(&self) -> Running {
        let weston = self
            .start_weston()
            .args(["--backend=wayland-backend.so", "--shell=kiosk-shell.so"])
            .args(["--width=1280", "--height=800"])
            .start();
        let empty = self.picture();
        let socket = self.runtime.join(WESTON);
        eventually("weston's window", || {
            socket.exists() && self.picture() != empty
        });
        weston
    }

    /// Returns the picture on the screen, as bytes of a PPM file.
    #[must_use]
    pub fn picture(&self) -> Vec<u8> {
        self.program("grim").args(["-t", "ppm", "-"]).output()
    }

    /// Returns the picture once it no longer changes.
    #[must_use]
    pub fn still_picture(&self) -> Vec<u8> {
        // Two alike are not enough: between its first size and the compositor's a program may take longer than that.
        const ALIKE: u32 = 5;
        let (mut last, mut alike) = (self.picture(), 1);
        soon("a picture that stays", || {
            let now = self.picture();
            alike = if now == last { alike + 1 } else { 1 };
            last = now;
            (alike == ALIKE).then(|| last.clone())
        })
    }

    /// Keeps the picture on the screen for people, in the folder that [`PICTURES`] names.
    pub fn keep(&self, name: &str) {
        if let Some(folder) = std::env::var_os(PICTURES) {
            let path = Path::new(&folder).join(format!("{name}.png"));
            let _ = self.program("grim").args([path]).run_with(&[]);
        }
    }

    /// Types text into the window with the focus.
    pub fn type_text(&self, text: &str) {
        // The first key of a new keyboard is lost without a pause.
        self.program("wtype")
            .args(["-s", "400", text, "-k", "Return"])
            .output();
    }

    /// Puts the pointer there.
    ///
    /// # Panics
    /// When the compositor is gone.
    pub fn move_pointer(&self, x: u32, y: u32) {
        self.pointer.move_to((x, y)).expect("sway takes motions");
    }

    /// Presses a button or lets it go.
    ///
    /// # Panics
    /// When the compositor is gone.
    pub fn press(&self, button: Button, down: bool) {
        self.pointer
            .press(button, down)
            .expect("sway takes buttons");
    }

    /// Presses and releases a button.
    pub fn click(&self, button: Button) {
        self.press(button, true);
        self.press(button, false);
    }

    /// Drags with the left button from one place to another, in steps as a hand does.
    pub fn drag(&self, from: (u32, u32), to: (u32, u32)) {
        const STEPS: u32 = 8;
        self.move_pointer(from.0, from.1);
        self.press(Button::Left, true);
        let between = |from: u32, to: u32, step: u32| (from * (STEPS - step) + to * step) / STEPS;
        for step in 1..=STEPS {
            self.move_pointer(between(from.0, to.0, step), between(from.1, to.1, step));
            // Programs decide about a drop when they have seen the drag over them.
            let _ = self.still_picture();
        }
        self.press(Button::Left, false);
    }

    /// Closes the windows of that title, as the user does.
    pub fn close(&self, title: &str) {
        // A regular expression, in which a tag's brackets would be special.
        let title = title.replace('[', "\\[").replace(']', "\\]");
        self.tell(&[&format!("[title=\"^{title}$\"] kill")]);
    }

    /// Gives sway an order in its own language.
    pub fn tell(&self, words: &[&str]) {
        self.program("swaymsg")
            .env("SWAYSOCK", &self.ipc)
            .args(words)
            .output();
    }

    /// Returns name and app id of every window.
    #[must_use]
    pub fn windows(&self) -> Vec<(String, String)> {
        let tree = self
            .program("swaymsg")
            .env("SWAYSOCK", &self.ipc)
            .args(["-t", "get_tree", "-r"])
            .output();
        let tree: Value = serde_json::from_slice(&tree).expect("sway speaks JSON");
        let mut found = Vec::new();
        collect(&tree, &mut found);
        found
    }

    /// Waits until there are that many windows and returns them.
    #[must_use]
    #[track_caller]
    pub fn wait_for_windows(&self, count: usize) -> Vec<(String, String)> {
        soon(&format!("{count} windows"), || {
            Some(self.windows()).filter(|all| all.len() == count)
        })
    }
}

/// Makes `path` the programs' own if root runs the test.
///
/// # Panics
/// When it is not there.
pub fn give_away(path: &Path) {
    if getuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may chown");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Killed, it leaves its sockets behind.
        self.sway.kill();
        let lock = format!("{}.lock", self.display);
        let sockets = [&self.display, &lock].map(|name| self.runtime.join(name));
        for path in sockets.iter().chain([&self.ipc]) {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

fn collect(node: &Value, found: &mut Vec<(String, String)>) {
    if let Some(app_id) = node.get("app_id").and_then(Value::as_str) {
        let name = node.get("name").and_then(Value::as_str).unwrap_or_default();
        found.push((name.to_owned(), app_id.to_owned()));
    }
    for part in ["nodes", "floating_nodes"] {
        for child in node
            .get(part)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            collect(child, found);
        }
    }
}
