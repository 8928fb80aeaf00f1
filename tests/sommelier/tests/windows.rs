//! Windows through both ends on a headless sway: they look as they do without us, take input, and are marked.

use windows::{Link, Options, Screen, Stage, WESTON, eventually, soon};

/// A terminal whose content does not depend on time or place.
const FOOT: [&str; 6] = [
    "-o",
    "main.font=DejaVu Sans Mono:size=9",
    "sh",
    "-c",
    "seq 1 200; printf end; sleep 600",
    "sh",
];

#[test]
fn a_terminal_looks_the_same_with_and_without_us() {
    let screen = Screen::new();
    let foot = screen.program("foot").args(FOOT).start();
    let _ = screen.wait_for_windows(1);
    let direct = screen.still_picture();
    drop(foot);
    assert!(direct.len() > 1280 * 800, "a picture of the whole screen");
    for link in [Link::Stream, Link::Packed, Link::Direct] {
        let _ = screen.wait_for_windows(0);
        let options = Options {
            link,
            ..Options::default()
        };
        let stage = Stage::new(&screen, &options);
        let _foot = stage.program("foot").args(FOOT).start();
        eventually(&format!("the same picture over {link:?}"), || {
            screen.picture() == direct
        });
    }
}

#[test]
fn a_gtk_program_looks_the_same_with_and_without_us() {
    let screen = Screen::new();
    let stage = Stage::new(&screen, &Options::default());
    let gtk = |program: windows::Program| {
        program
            .env("GSK_RENDERER", "cairo")
            .env("GTK_A11Y", "none")
            .start()
    };
    let direct = gtk(screen.program("gtk4-demo"));
    let _ = screen.wait_for_windows(1);
    let picture = screen.still_picture();
    drop(direct);
    let _ = screen.wait_for_windows(0);
    let _proxied = gtk(stage.program("gtk4-demo"));
    eventually("the same picture", || screen.picture() == picture);
}

#[test]
fn typed_text_arrives() {
    let screen = Screen::new();
    let stage = Stage::new(&screen, &Options::default());
    let heard = screen.runtime().join("heard");
    let listen = format!("read line; echo \"$line\" > {}", heard.display());
    let _foot = stage.program("foot").args(["sh", "-c", &listen]).start();
    let _ = screen.wait_for_windows(1);
    screen.type_text("Grüße, 123");
    soon("typed text", || {
        std::fs::read_to_string(&heard)
            .ok()
            .filter(|text| text == "Grüße, 123\n")
    });
}

#[test]
fn every_window_is_marked() {
    let screen = Screen::new();
    let stage = Stage::new(&screen, &Options::default());
    let _named = stage
        .program("foot")
        .args([
            "-T",
            "Mail",
            "-a",
            "org.testudo.vm.bank.mail",
            "sleep",
            "600",
        ])
        .start();
    let [(title, app_id)] = &screen.wait_for_windows(1)[..] else {
        panic!("one window")
    };
    assert_eq!(title, "[penguin] Mail");
    assert_eq!(app_id, "org.testudo.vm.penguin.org.testudo.vm.bank.mail");
    // An X server in a window never names itself.
    let number = format!(":{}", 70_000 + std::process::id() % 1_000);
    let _unnamed = stage.program("Xwayland").args([number]).start();
    let all = screen.wait_for_windows(2);
    assert!(
        all.iter().all(|(title, id)| title.starts_with("[penguin] ")
            && id.starts_with("org.testudo.vm.penguin.")),
        "{all:?}"
    );
}

/// Returns name and version of every global that wayland-info prints.
fn globals(text: &[u8]) -> Vec<(String, u32)> {
    let text = String::from_utf8_lossy(text);
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("interface: '"));
    let global = |line: &str| {
        let (name, rest) = line.split_once('\'')?;
        let version = rest
            .split("version:")
            .nth(1)?
            .split(',')
            .next()?
            .trim()
            .parse()
            .ok()?;
        Some((name.to_owned(), version))
    };
    let mut all: Vec<_> = lines.filter_map(global).collect();
    all.sort();
    all.dedup();
    all
}

/// Asserts that a guest sees `expected` and nothing in a later version than the host has it.
fn sees(host: &[(String, u32)], guest: &[(String, u32)], expected: &[&str]) {
    let names: Vec<&str> = guest.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(names, expected);
    for (name, version) in guest {
        let offered = host
            .iter()
            .find(|(each, _)| each == name)
            .map(|(_, version)| *version);
        assert!(
            offered >= Some(*version),
            "{name} {version} was {offered:?} on the host"
        );
    }
}

#[test]
fn the_guest_sees_only_what_is_allowed() {
    let screen = Screen::new();
    let stage = Stage::new(&screen, &Options::default());
    let host = globals(&screen.program("wayland-info").output());
    let guest = globals(&stage.program("wayland-info").output());
    sees(&host, &guest, &SWAY_1_7);
    drop(stage);
    let _weston = screen.weston();
    let options = Options {
        compositor: Some(WESTON),
        ..Options::default()
    };
    let stage = Stage::new(&screen, &options);
    let direct = screen
        .program("wayland-info")
        .env("WAYLAND_DISPLAY", WESTON);
    let host = globals(&direct.output());
    let guest = globals(&stage.program("wayland-info").output());
    sees(&host, &guest, &WESTON_10);
}

/// What a guest sees under Debian 12's sway.
const SWAY_1_7: [&str; 20] = [
    "org_kde_kwin_server_decoration_manager",
    "wl_compositor",
    "wl_data_device_manager",
    "wl_output",
    "wl_seat",
    "wl_shm",
    "wl_subcompositor",
    "wp_presentation",
    "wp_viewporter",
    "xdg_activation_v1",
    "xdg_wm_base",
    "zwp_idle_inhibit_manager_v1",
    "zwp_pointer_constraints_v1",
    "zwp_pointer_gestures_v1",
    "zwp_primary_selection_device_manager_v1",
    "zwp_relative_pointer_manager_v1",
    "zwp_tablet_manager_v2",
    "zwp_text_input_manager_v3",
    "zxdg_decoration_manager_v1",
    "zxdg_output_manager_v1",
];

/// What a guest sees under Debian 12's weston.
const WESTON_10: [&str; 12] = [
    "wl_compositor",
    "wl_data_device_manager",
    "wl_output",
    "wl_seat",
    "wl_shm",
    "wl_subcompositor",
    "wp_presentation",
    "wp_viewporter",
    "xdg_wm_base",
    "zwp_pointer_constraints_v1",
    "zwp_relative_pointer_manager_v1",
    "zxdg_output_manager_v1",
];
