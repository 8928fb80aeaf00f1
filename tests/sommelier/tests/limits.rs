//! Many windows, sizes that never rest, and guests that want too much: the limits of a VM hold and everything else goes on.

use serde_json::{Value, json};
use windows::{Load, Options, Probe, Running, Screen, Stage, eventually, usage};

/// Where the container's programs connect.
fn socket(screen: &Screen) -> std::path::PathBuf {
    screen.runtime().join("wayland-vm")
}

/// Both ends, with `limits` for the VM.
fn limited(screen: &Screen, limits: &Value) -> Stage {
    let options = Options {
        policy: json!({ "limits": limits }),
        ..Options::default()
    };
    Stage::new(screen, &options)
}

const SMALL: Load = Load {
    width: 320,
    height: 200,
    changed: (32, 32),
};

#[test]
fn two_hundred_windows_of_ten_programs_open_and_close() {
    let screen = Screen::new();
    let mut stage = Stage::new(&screen, &Options::default());
    let probes: Vec<Probe> = (0..10)
        .map(|_| Probe::connect(&socket(&screen)).expect("a place for a program"))
        .collect();
    for probe in &probes {
        probe.open(SMALL, 20).expect("twenty windows");
    }
    let all = screen.wait_for_windows(200);
    assert!(
        all.iter().all(|(title, id)| title.starts_with("[penguin] ")
            && id.starts_with("org.testudo.vm.penguin.")),
        "every one is marked"
    );
    drop(probes);
    let _ = screen.wait_for_windows(0);
    assert!(stage.hostd.is_alive() && stage.sommelier.is_alive());
}

#[test]
fn more_windows_than_allowed_end_only_their_program() {
    let screen = Screen::new();
    let mut stage = limited(&screen, &json!({ "windows": 8 }));
    let _foot = stage.program("foot").args(["sleep", "600"]).start();
    let _ = screen.wait_for_windows(1);
    let greedy = Probe::connect(&socket(&screen)).expect("a place for a program");
    assert!(greedy.open(SMALL, 20).is_err(), "windows without limit");
    drop(greedy);
    let _ = screen.wait_for_windows(1);
    let modest = Probe::connect(&socket(&screen)).expect("a place for a program");
    modest.open(SMALL, 7).expect("what was taken is given back");
    assert!(stage.hostd.is_alive());
}

#[test]
fn more_programs_than_allowed_are_told() {
    let screen = Screen::new();
    let stage = limited(&screen, &json!({ "clients": 4 }));
    let four: Vec<Running> = (0..4)
        .map(|_| stage.program("foot").args(["sleep", "600"]).start())
        .collect();
    let _ = screen.wait_for_windows(4);
    let mut fifth = stage.program("foot").args(["sleep", "600"]).start();
    eventually("the fifth ends", || !fifth.is_alive());
    assert!(
        fifth.log().contains("too many programs are connected"),
        "{}",
        fifth.log()
    );
    drop(four);
    let _ = screen.wait_for_windows(0);
    let _next = stage.program("foot").args(["sleep", "600"]).start();
    let _ = screen.wait_for_windows(1);
}

#[test]
fn shared_memory_has_a_ceiling_for_the_whole_vm() {
    let screen = Screen::new();
    let mut stage = limited(&screen, &json!({ "pool_bytes": 8 << 20 }));
    let huge = Load {
        width: 4000,
        height: 4000,
        changed: (1, 1),
    };
    let idle = usage(stage.hostd.pid()).memory_kib;
    let probe = Probe::connect(&socket(&screen)).expect("a place for a program");
    assert!(
        probe.draw(huge, 1).is_err(),
        "192 MB in a VM that has 8 MiB"
    );
    drop(probe);
    let used = usage(stage.hostd.pid()).memory_kib;
    assert!(used < idle + 16 * 1024, "{used} KiB after {idle}");
    let small = Probe::connect(&socket(&screen)).expect("a place for a program");
    let drawn = small.draw(SMALL, 3).expect("a window that fits");
    assert_eq!(drawn.read_us.len(), 3);
    assert!(stage.hostd.is_alive());
}

#[test]
fn a_window_follows_a_storm_of_sizes() {
    let screen = Screen::new();
    let stage = Stage::new(&screen, &Options::default());
    // A terminal would wrap its lines anew; this one forgets every size but the last.
    let _editor = stage
        .program("featherpad")
        .args(["--standalone"])
        .env("QT_QPA_PLATFORM", "wayland")
        .start();
    let _ = screen.wait_for_windows(1);
    let before = screen.still_picture();
    screen.tell(&["floating", "enable"]);
    for step in 0..100_u32 {
        let (width, height) = (200 + step * 7 % 900, 150 + step * 13 % 600);
        let size = format!("resize set {width} px {height} px");
        screen.tell(&[&size]);
    }
    screen.tell(&["floating", "disable"]);
    eventually("the picture of the first size", || {
        screen.picture() == before
    });
}

#[test]
fn a_title_without_end_costs_its_program_nothing_and_others_neither() {
    let screen = Screen::new();
    let mut stage = Stage::new(&screen, &Options::default());
    let bomb = "title=''; for i in $(seq 1 3000); do title=\"$title\u{202e}long\"; printf '\\033]0;%s\\007' \"$title\"; done; sleep 600";
    let _foot = stage.program("foot").args(["sh", "-c", bomb]).start();
    let _ = screen.wait_for_windows(1);
    eventually("a cut title", || {
        let all = screen.windows();
        let longest = all.iter().map(|(title, _)| title.chars().count()).max();
        longest > Some(200)
    });
    let [(title, _)] = &screen.windows()[..] else {
        panic!("one window")
    };
    assert!(title.starts_with("[penguin] "), "{title}");
    assert!(title.chars().count() <= 256 + "[penguin] ".len());
    assert!(!title.contains('\u{202e}'), "text that turns around");
    assert!(stage.hostd.is_alive());
}

#[test]
fn connections_that_say_nothing_hold_nobody_up() {
    let screen = Screen::new();
    let mut stage = Stage::new(&screen, &Options::default());
    let silent: Vec<_> = (0..300)
        .filter_map(|_| std::os::unix::net::UnixStream::connect(&stage.link).ok())
        .collect();
    assert!(silent.len() > 64, "more than a VM may have");
    drop(silent);
    let _foot = eventually_shown(&screen, &stage);
    assert!(stage.hostd.is_alive());
}

/// Starts foot until it is shown: while places are given back it may be told that there is none.
fn eventually_shown(screen: &Screen, stage: &Stage) -> Running {
    let mut foot = stage.program("foot").args(["sleep", "600"]).start();
    eventually("a window", || {
        if !foot.is_alive() {
            foot = stage.program("foot").args(["sleep", "600"]).start();
        }
        screen.windows().len() == 1
    });
    foot
}

#[test]
fn a_program_without_end_of_objects_is_ended() {
    let screen = Screen::new();
    let mut stage = limited(&screen, &json!({ "objects": 1000 }));
    let probe = Probe::connect(&socket(&screen)).expect("a place for a program");
    let flood = probe.flood(200_000);
    assert!(flood.is_err(), "objects without limit");
    assert!(stage.hostd.is_alive());
    let modest = Probe::connect(&socket(&screen)).expect("a place for a program");
    modest.open(SMALL, 1).expect("others have windows");
}
