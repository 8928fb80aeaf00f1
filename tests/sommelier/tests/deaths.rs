//! kill -9 of every part: what is left goes on, and nothing of the dead stays on the screen. And a guest that lies.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use wayland::frame::{Frame, RowsHead};
use windows::{Options, Screen, Stage, eventually};

#[test]
fn the_end_of_a_program_takes_only_its_own_window() {
    let screen = Screen::new();
    let mut stage = Stage::new(&screen, &Options::default());
    let mut first = stage
        .program("foot")
        .args(["-T", "first", "sleep", "600"])
        .start();
    let _second = stage
        .program("foot")
        .args(["-T", "second", "sleep", "600"])
        .start();
    let _ = screen.wait_for_windows(2);
    first.kill();
    let [(title, _)] = &screen.wait_for_windows(1)[..] else {
        panic!("one window")
    };
    assert_eq!(title, "[penguin] second");
    assert!(stage.hostd.is_alive() && stage.sommelier.is_alive());
}

#[test]
fn without_the_host_end_windows_close_and_the_container_side_lives() {
    let screen = Screen::new();
    let mut stage = Stage::new(&screen, &Options::default());
    let mut foot = stage.program("foot").args(["sleep", "600"]).start();
    let _ = screen.wait_for_windows(1);
    stage.hostd.kill();
    let _ = screen.wait_for_windows(0);
    eventually("foot ends", || !foot.is_alive());
    assert!(stage.sommelier.is_alive());
}

#[test]
fn without_the_container_side_windows_close_and_the_host_end_lives() {
    let screen = Screen::new();
    let mut stage = Stage::new(&screen, &Options::default());
    let _foot = stage.program("foot").args(["sleep", "600"]).start();
    let _ = screen.wait_for_windows(1);
    stage.sommelier.kill();
    let _ = screen.wait_for_windows(0);
    assert!(stage.hostd.is_alive());
}

#[test]
fn without_the_compositor_both_ends_live_and_programs_are_told() {
    let mut screen = Screen::new();
    let mut stage = Stage::new(&screen, &Options::default());
    let mut foot = stage.program("foot").args(["sleep", "600"]).start();
    let _ = screen.wait_for_windows(1);
    screen.sway.kill();
    eventually("foot ends", || !foot.is_alive());
    assert!(stage.hostd.is_alive() && stage.sommelier.is_alive());
}

fn frames(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.write(&mut bytes);
    }
    bytes
}

/// Messages that no honest guest sends, each for a connection of its own.
fn lies() -> Vec<Vec<u8>> {
    let hello = || Frame::Hello {
        clock_ns: 0,
        label: "liar",
    };
    let outside = RowsHead {
        pool: 1,
        offset: 4000,
        stride: 100,
        row_len: 100,
        rows: 1,
        codec: 0,
    };
    let words = |list: &[u32]| {
        list.iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect::<Vec<u8>>()
    };
    // get_registry(2), then bind of name 1 as something that was never announced.
    let mut bind = words(&[1, 12 << 16 | 1, 2, 2, 52 << 16, 1, 28]);
    bind.extend_from_slice(b"ext_data_control_manager_v1\0");
    bind.extend(words(&[1, 3]));
    let no_object = words(&[77, 8 << 16]);
    vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 64],
        frames(&[Frame::DropPool(1)]),
        frames(&[
            hello(),
            Frame::Pool { id: 1, size: 4096 },
            Frame::Rows(outside, &[0; 100]),
        ]),
        frames(&[
            hello(),
            Frame::Discard {
                id: 9,
                offset: 0,
                len: 1,
            },
        ]),
        frames(&[hello(), Frame::Wayland(vec![], &bind)]),
        frames(&[hello(), Frame::Wayland(vec![], &no_object)]),
    ]
}

/// Returns whether the host end closes a connection on which `lie` was sent.
fn is_refused(link: &Path, lie: &[u8]) -> bool {
    let mut stream = UnixStream::connect(link).expect("the host end listens");
    stream.write_all(lie).expect("a small message fits");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout");
    let mut answer = [0; 4096];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn a_lying_guest_loses_its_connection_and_nothing_else() {
    let screen = Screen::new();
    let mut stage = Stage::new(&screen, &Options::default());
    let _foot = stage.program("foot").args(["sleep", "600"]).start();
    let _ = screen.wait_for_windows(1);
    for (number, lie) in lies().iter().enumerate() {
        assert!(is_refused(&stage.link, lie), "lie {number} was believed");
    }
    assert!(stage.hostd.is_alive());
    assert_eq!(screen.windows().len(), 1);
}
