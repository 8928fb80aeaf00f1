//! Programs of the big toolkits, on Wayland and on X, under two compositors: they look as they do without us, and take what
//! a user does to them.

use windows::{Button, Options, Program, Running, Screen, Stage, WESTON, eventually, soon};

/// A terminal whose content does not depend on time, place or the size of a nested screen in millimetres.
const FOOT: [&str; 7] = [
    "-o",
    "main.font=DejaVu Sans Mono:size=9",
    "-o",
    "main.dpi-aware=no",
    "sh",
    "-c",
    "seq 1 200; read line; echo \"heard $line\"; sleep 600",
];

type Words = &'static [&'static str];
type Variables = &'static [(&'static str, &'static str)];

/// Programs that draw the same picture each time, with the variables that choose their toolkit's way to the screen.
const STILL: &[(&str, Words, Variables)] = &[
    ("gtk3-demo", &[], &[("GDK_BACKEND", "wayland")]),
    (
        "featherpad",
        &["--standalone"],
        &[("QT_QPA_PLATFORM", "wayland")],
    ),
    ("weston-terminal", &["--shell=/bin/cat"], &[]),
    (
        "/usr/libexec/installed-tests/SDL2/testdrawchessboard",
        &[],
        &[("SDL_VIDEODRIVER", "wayland")],
    ),
];

fn start(program: Program, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
    let program = program.args(arguments).env("GTK_A11Y", "none");
    variables
        .iter()
        .fold(program, |program, (name, value)| program.env(name, value))
        .start()
}

/// Waits for a window and returns its picture, once that is whole.
fn shown(screen: &Screen, empty: &[u8]) -> Vec<u8> {
    let _ = screen.wait_for_windows(1);
    soon("a drawn window", || {
        Some(screen.still_picture()).filter(|picture| picture != empty)
    })
}

#[test]
fn programs_of_every_toolkit_look_the_same_with_and_without_us() {
    let screen = Screen::new();
    let stage = Stage::new(&screen, &Options::default());
    let empty = screen.still_picture();
    for (name, arguments, variables) in STILL {
        let direct = start(screen.program(name), arguments, variables);
        let picture = shown(&screen, &empty);
        drop(direct);
        let _ = screen.wait_for_windows(0);
        let proxied = start(stage.program(name), arguments, variables);
        eventually(&format!("the same picture of {name}"), || {
            screen.picture() == picture
        });
        screen.keep(&format!("wayland{}", name.replace('/', "-")));
        drop(proxied);
        let _ = screen.wait_for_windows(0);
    }
}

#[test]
fn weston_shows_what_sway_shows() {
    let screen = Screen::new();
    let _weston = screen.weston();
    let options = Options {
        compositor: Some(WESTON),
        ..Options::default()
    };
    let stage = Stage::new(&screen, &options);
    let empty = screen.still_picture();
    let direct = start(
        screen.program("foot").env("WAYLAND_DISPLAY", WESTON),
        &FOOT,
        &[],
    );
    let picture = soon("foot's window", || {
        Some(screen.still_picture()).filter(|picture| *picture != empty)
    });
    drop(direct);
    eventually("an empty screen", || screen.picture() == empty);
    let proxied = start(stage.program("foot"), &FOOT, &[]);
    eventually("the same picture", || screen.picture() == picture);
    screen.type_text("typed through weston");
    eventually("typed text", || screen.picture() != picture);
    screen.keep("foot-weston");
    drop(proxied);
    eventually("an empty screen", || screen.picture() == empty);
}

/// Programs of four toolkits on X, with the class that each gives its window.
const ON_X: &[(&str, Words, Variables, &str)] = &[
    (
        "xclock",
        &["-digital", "-strftime", "Clock", "-update", "600"],
        &[],
        "XClock",
    ),
    ("gtk3-demo", &[], &[("GDK_BACKEND", "x11")], "Gtk3-demo"),
    (
        "featherpad",
        &["--standalone"],
        &[("QT_QPA_PLATFORM", "xcb")],
        "FeatherPad",
    ),
    (
        "/usr/libexec/installed-tests/SDL2/testdrawchessboard",
        &[],
        &[("SDL_VIDEODRIVER", "x11")],
        "testdrawchessboard",
    ),
];

/// More pixels than the pointer has; a menu's text alone is more.
const SOME: usize = 1_000;

fn differing(one: &[u8], other: &[u8]) -> usize {
    one.chunks(3)
        .zip(other.chunks(3))
        .filter(|(one, other)| one != other)
        .count()
}

#[test]
fn x_programs_of_every_toolkit_are_drawn_and_close() {
    let screen = Screen::new();
    let stage = Stage::new(&screen, &Options::default());
    let empty = screen.still_picture();
    for (name, arguments, variables, class) in ON_X {
        let mut program = start(stage.program(name), arguments, variables);
        let [(title, app_id)] = &screen.wait_for_windows(1)[..] else {
            panic!("one window of {name}")
        };
        assert_eq!(*app_id, format!("org.testudo.vm.penguin.{class}"));
        eventually(&format!("a picture of {name}"), || {
            differing(&screen.still_picture(), &empty) > SOME
        });
        screen.keep(&format!("{class}-x"));
        screen.close(title);
        eventually(&format!("{name} ends"), || !program.is_alive());
        let _ = screen.wait_for_windows(0);
    }
}

/// A place in the screen's lower right corner, where no menu fits below or beside the pointer.
const CORNER: (u32, u32) = (1250, 700);

/// Asks for a menu in the corner and returns what the screen shows then.
fn menu_in_the_corner(screen: &Screen) -> Vec<u8> {
    screen.move_pointer(CORNER.0, CORNER.1);
    let before = screen.still_picture();
    screen.click(Button::Right);
    soon("a menu", || {
        Some(screen.still_picture()).filter(|picture| differing(picture, &before) > SOME)
    })
}

#[test]
fn menus_stay_on_the_screen() {
    let screen = Screen::new();
    let stage = Stage::new(&screen, &Options::default());
    let empty = screen.still_picture();
    let wayland = [("QT_QPA_PLATFORM", "wayland")];
    let direct = start(screen.program("featherpad"), &["--standalone"], &wayland);
    let _ = shown(&screen, &empty);
    let expected = menu_in_the_corner(&screen);
    drop(direct);
    let _ = screen.wait_for_windows(0);
    let proxied = start(stage.program("featherpad"), &["--standalone"], &wayland);
    let _ = shown(&screen, &empty);
    let got = menu_in_the_corner(&screen);
    screen.keep("menu-wayland");
    assert_eq!(differing(&got, &expected), 0, "a menu that was moved by us");
    drop(proxied);
    let _ = screen.wait_for_windows(0);
    let on_x = [("QT_QPA_PLATFORM", "xcb")];
    let _x = start(stage.program("featherpad"), &["--standalone"], &on_x);
    let _ = shown(&screen, &empty);
    let _menu = menu_in_the_corner(&screen);
    screen.keep("menu-x");
}

/// Returns whether every two by two pixels are one: something small that was enlarged.
fn is_enlarged(picture: &[u8]) -> bool {
    let row = 1280 * 3;
    let pixels = &picture[picture.len() - row * 800..];
    pixels.chunks(row * 2).all(|rows| {
        let (upper, lower) = rows.split_at(row);
        upper == lower && upper.chunks(6).all(|pair| pair[..3] == pair[3..])
    })
}

#[test]
fn x_programs_are_sharp_on_a_sharp_screen_or_large() {
    let screen = Screen::new();
    screen.tell(&["output", "*", "scale", "2"]);
    let text = |scale: Option<&'static str>| {
        let options = Options {
            scale,
            ..Options::default()
        };
        let stage = Stage::new(&screen, &options);
        let empty = screen.still_picture();
        let _xterm = stage
            .program("xterm")
            .args(["-bg", "#654321", "-e", "sh", "-c", "seq 1 400; sleep 600"])
            .start();
        let picture = shown(&screen, &empty);
        screen.keep(&format!("xterm-scale-{}", scale.unwrap_or("screen")));
        picture
    };
    assert!(
        !is_enlarged(&text(None)),
        "a pixel of X is one of the screen"
    );
    let _ = screen.wait_for_windows(0);
    assert!(
        is_enlarged(&text(Some("1"))),
        "a pixel of X is as large as others' units"
    );
}

/// Where weston-dnd has its first flower, of forty pixels, and where there is nothing.
const FLOWER: (u32, u32) = (134, 75);
const MEADOW: (u32, u32) = (800, 600);

#[test]
fn a_drag_within_a_program_is_dropped() {
    let screen = Screen::new();
    let stage = Stage::new(&screen, &Options::default());
    let empty = screen.still_picture();
    let _dnd = stage.program("weston-dnd").start();
    let before = shown(&screen, &empty);
    screen.drag(FLOWER, MEADOW);
    let after = soon("a moved flower", || {
        Some(screen.still_picture()).filter(|picture| *picture != before)
    });
    screen.keep("weston-dnd");
    let row = 1280 * 3;
    let around = |picture: &[u8], (x, y): (u32, u32)| -> Vec<u8> {
        let pixels = &picture[picture.len() - row * 800..];
        let (x, y) = (x as usize, y as usize);
        let rows = (y - 20..y + 20).flat_map(|y| &pixels[y * row + (x - 20) * 3..][..120]);
        rows.copied().collect()
    };
    assert_eq!(
        around(&after, MEADOW),
        around(&before, FLOWER),
        "the flower is there"
    );
    assert_eq!(
        around(&after, FLOWER),
        around(&before, MEADOW),
        "and no longer here"
    );
}
