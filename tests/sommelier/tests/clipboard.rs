//! Copying and pasting between host and container: every size and type that may cross arrives whole, and the rest does not.

use std::io::Read as _;
use std::process::Stdio;

use serde_json::json;
use windows::{Options, Screen, Stage, soon};

const MIB: usize = 1024 * 1024;

/// Bytes that no compression or text conversion leaves as they are.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

struct Desk {
    screen: Screen,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Host,
    Guest,
}

impl Desk {
    fn new(clipboard: &serde_json::Value) -> Self {
        let screen = Screen::new();
        let policy = json!({ "clipboard": clipboard });
        let stage = Stage::new(
            &screen,
            &Options {
                policy,
                ..Options::default()
            },
        );
        Self { screen, stage }
    }

    fn program(&self, place: Place, name: &str) -> windows::Program {
        match place {
            Place::Host => self.screen.program(name),
            Place::Guest => self.stage.program(name),
        }
    }

    fn copy(&self, place: Place, options: &[&str], data: &[u8]) {
        self.program(place, "wl-copy").args(options).serve(data);
    }

    fn paste(&self, place: Place, options: &[&str]) -> Vec<u8> {
        self.program(place, "wl-paste")
            .args(["-n"])
            .args(options)
            .run_with(&[])
            .stdout
    }

    /// Copies on one side and pastes on the other until what was copied is there.
    fn crosses(&self, from: Place, options: &[&str], data: &[u8]) {
        let to = if from == Place::Host {
            Place::Guest
        } else {
            Place::Host
        };
        self.copy(from, options, data);
        let what = format!("{} bytes from {from:?} with {options:?}", data.len());
        soon(&what, || (self.paste(to, options) == data).then_some(()));
    }
}

#[test]
fn data_of_every_size_crosses_whole() {
    let desk = Desk::new(&json!({ "max_bytes": 200 * MIB }));
    for len in [1, 4096, 65_536, 65_537, 5 * MIB, 100 * MIB] {
        let data = noise(len);
        for from in [Place::Host, Place::Guest] {
            desk.crosses(from, &["-t", "image/png"], &data);
        }
    }
}

#[test]
fn types_and_the_primary_selection_cross() {
    let desk = Desk::new(&json!({}));
    for from in [Place::Host, Place::Guest] {
        desk.crosses(from, &["-t", "text/html"], "<b>fett – 太字</b>".as_bytes());
        desk.crosses(from, &["-t", "text/uri-list"], b"file:///etc/hostname\r\n");
        desk.crosses(
            from,
            &["-p", "-t", "text/plain"],
            format!("selected on {from:?}").as_bytes(),
        );
    }
}

#[test]
fn a_type_that_is_not_listed_stays_where_it_is() {
    let desk = Desk::new(&json!({}));
    for (from, to) in [(Place::Host, Place::Guest), (Place::Guest, Place::Host)] {
        desk.crosses(
            from,
            &["-t", "text/plain"],
            format!("before {from:?}").as_bytes(),
        );
        desk.copy(from, &["-t", "application/x-secret"], b"secret");
        let gone = || !desk.paste(to, &[]).starts_with(b"before");
        windows::eventually("the old text is gone", gone);
        assert_eq!(desk.paste(to, &["-t", "application/x-secret"]), b"");
    }
}

#[test]
fn off_means_off_in_each_direction() {
    let desk = Desk::new(&json!({ "modes": { "to_guest": "off" } }));
    desk.crosses(
        Place::Guest,
        &["-t", "text/plain"],
        b"the other direction works",
    );
    desk.copy(Place::Host, &["-t", "text/plain"], b"for the host only");
    windows::eventually("the host has it", || {
        desk.paste(Place::Host, &[]) == b"for the host only"
    });
    assert_eq!(desk.paste(Place::Guest, &[]), b"");
    let desk = Desk::new(&json!({ "modes": { "to_host": "off" } }));
    desk.crosses(
        Place::Host,
        &["-t", "text/plain"],
        b"the other direction works",
    );
    desk.copy(Place::Guest, &["-t", "text/plain"], b"for the guest only");
    assert_eq!(desk.paste(Place::Host, &[]), b"the other direction works");
}

#[test]
fn a_transfer_over_the_cap_is_cut_and_written_down() {
    let desk = Desk::new(&json!({ "max_bytes": MIB }));
    let data = noise(8 * MIB);
    desk.copy(Place::Host, &["-t", "image/png"], &data);
    let got = soon("a cut transfer", || {
        Some(desk.paste(Place::Guest, &[])).filter(|got| !got.is_empty())
    });
    assert!(
        got.len() < 2 * MIB && data.starts_with(&got),
        "{} bytes",
        got.len()
    );
    let line = soon("an audit line", || {
        let log = desk.stage.hostd.log();
        log.lines()
            .find(|line| line.contains("cut=true"))
            .map(str::to_owned)
    });
    assert!(
        line.contains("to-guest") && !line.contains("image data"),
        "{line}"
    );
}

#[test]
fn a_slow_reader_gets_everything_and_stops_nobody() {
    let desk = Desk::new(&json!({}));
    let data = noise(3 * MIB);
    desk.copy(Place::Host, &["-t", "image/png"], &data);
    let mut slow = desk
        .program(Place::Guest, "wl-paste")
        .args(["-n", "-t", "image/png"]);
    slow.command().stdout(Stdio::piped()).stdin(Stdio::null());
    let mut child = slow.command().spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut got = vec![0; 1000];
    out.read_exact(&mut got).unwrap();
    // While that reader stands still, another window opens and closes.
    let foot = desk.stage.program("foot").args(["sleep", "600"]).start();
    let _ = desk.screen.wait_for_windows(1);
    drop(foot);
    out.read_to_end(&mut got).unwrap();
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
    assert!(child.wait().unwrap().success());
}
