//! The host end of a VM's windows as data: what concierge writes and `wayland-hostd` reads, on the host. The policy in it is
//! also what concierge keeps for a VM and what it sends to a host end that runs.

use serde::{Deserialize, Serialize};

use crate::fd::InheritedFd;

/// Everything a host end needs to know. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowsSpec {
    /// The VM's name, as the user gave it; it marks every window.
    pub vm: String,
    /// The listening unix socket on which guest connections arrive.
    pub listener: InheritedFd,
    /// A directory that holds the compositor's socket and nothing else. It becomes the root of the
    /// jail; while the host end starts, it makes a socket of its own in it.
    pub directory: InheritedFd,
    /// The name of the compositor's socket in `directory`.
    pub compositor: String,
    /// A connected unix socket to whoever answers questions of the `ask` and `explicit` modes.
    #[serde(default)]
    pub control: Option<InheritedFd>,
    /// Whether clients pass descriptors, as on one machine. Never for a VM.
    #[serde(default)]
    pub direct: bool,
    /// What the VM may do.
    #[serde(default)]
    pub policy: Policy,
}

/// What a VM may do with the host's screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The first part of every window's app id, in reverse domain order.
    pub app_id_prefix: String,
    /// Copying and pasting.
    pub clipboard: Clipboard,
    /// Whether a program may keep the host's own shortcuts from working.
    pub shortcuts_inhibit: bool,
    /// Ceilings for the whole VM.
    pub limits: Limits,
}

/// When data may cross in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Never.
    Off,
    /// Each time somebody says yes.
    Ask,
    /// When the program has the focus: Wayland's own rule.
    OnFocus,
    /// Once after the user has asked for it.
    Explicit,
}

/// When data may cross, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Modes {
    /// From the host to the VM.
    pub to_guest: Mode,
    /// From the VM to the host.
    pub to_host: Mode,
}

/// Which way data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the host into the VM.
    ToGuest,
    /// From the VM to the host.
    ToHost,
}

/// What a host end asks in the mode `ask`, in a line of JSON on its control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Its number, which the answer repeats.
    pub ask: u64,
    /// Which way data would go.
    pub direction: Direction,
    /// The data's type, as a program says it.
    pub mime: String,
}

/// What a host end is told while it runs, each in a line of JSON on its control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// These modes hold from now on.
    Modes(Modes),
    /// It has a successor: take no more programs, and end with the last one.
    Leave,
    /// One transfer may cross, in the mode `explicit`.
    Grant(Direction),
    /// What was asked may cross, or not.
    Answer {
        /// The question's number.
        ask: u64,
        /// Whether it may.
        allow: bool,
    },
}

/// The rules for copying and pasting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clipboard {
    /// When data crosses at all.
    pub modes: Modes,
    /// Whether the primary selection (select, middle click) crosses, under the same modes.
    pub primary: bool,
    /// The types that may cross; `text/*` stands for every text.
    pub mime_types: Vec<String>,
    /// The most bytes of one transfer.
    pub max_bytes: u64,
    /// How long a transfer may stand still, in milliseconds.
    pub stall_ms: u64,
}

/// Ceilings for everything a guest can make the host hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connected programs.
    pub clients: u32,
    /// Surfaces of all programs.
    pub surfaces: u32,
    /// Windows of all programs.
    pub windows: u32,
    /// Bytes of shared memory of all programs.
    pub pool_bytes: u64,
    /// Bytes of one buffer.
    pub buffer_bytes: u64,
    /// Wayland objects of one program.
    pub objects: usize,
    /// Bytes of Wayland messages of one program in a second.
    pub message_bytes_per_s: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            app_id_prefix: "org.testudo".to_owned(),
            clipboard: Clipboard::default(),
            shortcuts_inhibit: false,
            limits: Limits::default(),
        }
    }
}

impl Default for Clipboard {
    fn default() -> Self {
        let mime_types = [
            "text/*",
            "UTF8_STRING",
            "STRING",
            "TEXT",
            "COMPOUND_TEXT",
            "image/png",
            "image/jpeg",
            "image/bmp",
        ];
        Self {
            modes: Modes::default(),
            primary: true,
            mime_types: mime_types.map(str::to_owned).to_vec(),
            max_bytes: 64 * 1024 * 1024,
            stall_ms: 5_000,
        }
    }
}

impl Default for Modes {
    fn default() -> Self {
        Self {
            to_guest: Mode::OnFocus,
            to_host: Mode::OnFocus,
        }
    }
}

impl Clipboard {
    /// Returns whether data of this type may cross.
    #[must_use]
    pub fn allows(&self, mime_type: &str) -> bool {
        self.mime_types
            .iter()
            .any(|allowed| match allowed.strip_suffix('*') {
                Some(start) => mime_type.starts_with(start),
                None => mime_type == allowed,
            })
    }
}

impl Default for Limits {
    /// The design's figures (sommelier.md §4); Qubes' default of 500 windows among them.
    fn default() -> Self {
        Self {
            clients: 64,
            surfaces: 2_000,
            windows: 500,
            pool_bytes: 1 << 30,
            buffer_bytes: 256 << 20,
            objects: 65_536,
            message_bytes_per_s: 8 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_needs_only_its_descriptors_and_name() {
        let text = r#"{"vm":"termina","listener":3,"directory":4,"compositor":"wayland"}"#;
        let spec: WindowsSpec = serde_json::from_str(text).unwrap();
        assert_eq!(spec.policy.clipboard.modes, Modes::default());
        assert!(!spec.direct);
    }

    #[test]
    fn orders_are_lines() {
        let modes = Modes {
            to_host: Mode::Off,
            ..Modes::default()
        };
        let lines = [Order::Modes(modes), Order::Leave].map(|order| serde_json::to_string(&order));
        let [modes, leave] = lines.map(Result::unwrap);
        assert_eq!(
            modes,
            r#"{"modes":{"to_guest":"on-focus","to_host":"off"}}"#
        );
        assert_eq!(leave, r#""leave""#);
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        let text = r#"{"vm":"t","listener":3,"directory":4,"compositor":"w","polcy":{}}"#;
        assert!(serde_json::from_str::<WindowsSpec>(text).is_err());
    }

    #[test]
    fn only_listed_types_cross() {
        let clipboard = Clipboard::default();
        for allowed in [
            "text/plain;charset=utf-8",
            "text/html",
            "text/uri-list",
            "UTF8_STRING",
            "image/png",
        ] {
            assert!(clipboard.allows(allowed), "{allowed}");
        }
        for denied in [
            "chromium/x-web-custom-data",
            "image/svg+xml",
            "UTF8_STRING_2",
            "application/x-kde",
        ] {
            assert!(!clipboard.allows(denied), "{denied}");
        }
    }
}
