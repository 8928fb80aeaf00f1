//! A headless screen: sway without any device, what is on it, and fingers to use it with.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rustix::process::getuid;
use serde_json::Value;

use crate::clock::soon;
use crate::programs::{Program, Running};

const CONFIG: &str = "output HEADLESS-1 resolution 1280x800\noutput * bg #203040 solid_color\ndefault_border none\n\
    focus_follows_mouse no\nxwayland disable\nseat seat0 hide_cursor 1\n";

/// The user and group of `nobody`.
const NOBODY: u32 = 65534;

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
        if getuid().is_root() {
            chown(runtime.path(), Some(NOBODY), Some(NOBODY)).expect("root may chown");
        }
        let mut screen = Self::in_runtime(runtime.path());
        screen.own = Some(runtime);
        screen
    }

    /// Starts a compositor in a user's runtime directory. What an earlier one left there is removed.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn in_runtime(runtime: &Path) -> Self {
        let ours = |name: &str| name.starts_with("wayland-") || name.starts_with("sway-ipc");
        for entry in std::fs::read_dir(runtime).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(ours) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
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

    /// Returns the picture on the screen, as bytes of a PPM file.
    #[must_use]
    pub fn picture(&self) -> Vec<u8> {
        self.program("grim").args(["-t", "ppm", "-"]).output()
    }

    /// Returns the picture once it no longer changes.
    #[must_use]
    pub fn still_picture(&self) -> Vec<u8> {
        let mut last = self.picture();
        soon("a picture that stays", || {
            let now = self.picture();
            let same = now == last;
            last = now;
            same.then(|| last.clone())
        })
    }

    /// Types text into the window with the focus.
    pub fn type_text(&self, text: &str) {
        // The first key of a new keyboard is lost without a pause.
        self.program("wtype")
            .args(["-s", "400", text, "-k", "Return"])
            .output();
    }

    /// Puts the pointer there.
    pub fn move_pointer(&self, x: u32, y: u32) {
        self.tell(&[
            "seat",
            "seat0",
            "cursor",
            "set",
            &x.to_string(),
            &y.to_string(),
        ]);
    }

    /// Presses and releases a button of the pointer, `button1` being the left one.
    pub fn click(&self, button: &str) {
        for act in ["press", "release"] {
            self.tell(&["seat", "seat0", "cursor", act, button]);
        }
    }

    /// Closes the windows of that title, as the user does.
    pub fn close(&self, title: &str) {
        // A regular expression, in which a tag's brackets would be special.
        let title = title.replace('[', "\\[").replace(']', "\\]");
        self.tell(&[&format!("[title=\"^{title}$\"] kill")]);
    }

    fn tell(&self, words: &[&str]) {
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
