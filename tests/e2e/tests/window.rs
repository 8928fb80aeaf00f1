//! Windows: programs of the container show themselves on the host's desktop, take text and pointer, and share its clipboard.
//!
//! Method: a headless compositor of the test's own is the desktop; foot, a GTK4 program and X programs are installed in the
//! container as a user would. Pictures are compared by the colours that a program was told to show and with each other, since
//! fonts differ between host and container. End to end, because a window crosses five processes and the VM's border.

use fixture::{Home, Role, walk};
use windows::{Screen, eventually, soon};

walk!(
    without_a_desktop_the_shell_works_and_programs_are_told,
    programs_are_installed,
    a_terminal_shows_its_colours_and_takes_text,
    closing_a_window_stops_nothing_else,
    a_gtk_program_shows_itself,
    x_programs_show_themselves_and_take_text_and_pointer,
    the_clipboard_crosses_both_ways,
    the_x_clipboard_crosses_both_ways,
    another_desktop_gets_the_next_window,
    a_killed_host_end_is_replaced,
    nothing_is_shown_after_the_desktop_has_gone,
);

/// What a user would type, and no more than that.
const INSTALL: &str = "sudo apt-get update 2>&1 && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y \
    --no-install-recommends foot fonts-dejavu-core wl-clipboard gtk-4-examples xwayland xterm x11-apps xclip 2>&1";

fn screen(home: &mut Home) -> Screen {
    let screen = Screen::in_runtime(&home.path("run"));
    home.set_display(Some(&screen.display));
    screen
}

/// The pixels of a picture as grim writes it: a PPM file, whose header is as long as it likes.
fn pixels(picture: &[u8]) -> impl Iterator<Item = [u8; 3]> {
    const PIXELS: usize = 1280 * 800;
    let header = picture.len() - PIXELS * 3;
    picture[header..]
        .chunks(3)
        .map(|pixel| pixel.try_into().unwrap_or_default())
}

fn count(screen: &Screen, colour: [u8; 3]) -> usize {
    pixels(&screen.picture())
        .filter(|pixel| *pixel == colour)
        .count()
}

fn without_a_desktop_the_shell_works_and_programs_are_told(home: &mut Home) {
    home.set_display(None);
    let variables = "echo $WAYLAND_DISPLAY $DISPLAY $XDG_RUNTIME_DIR; test -S $XDG_RUNTIME_DIR/$WAYLAND_DISPLAY";
    assert!(
        home.shell(variables)
            .ok()
            .text()
            .starts_with("wayland-0 :0 /run/user/")
    );
    assert!(home.processes(Role::Windows).is_empty());
    // The words are those of wl_display.error, which every Wayland library prints.
    let ask = "timeout 20 curl -s --http0.9 --unix-socket $XDG_RUNTIME_DIR/wayland-0 http://x/ --output - | tr -d '\\0'";
    let said = home.shell(ask).text();
    assert!(said.contains("the host shows no windows"), "{said:?}");
}

fn programs_are_installed(home: &mut Home) {
    let _ = home.shell(INSTALL).ok();
    let told = home.shell("timeout 60 foot true").errors();
    assert!(told.contains("the host shows no windows"), "{told}");
    let told = home.shell("timeout 60 xclip -o").errors();
    assert!(told.contains("the host shows no windows"), "{told}");
}

/// foot in one colour, which nothing else on the screen has.
fn foot(rest: &str) -> String {
    format!(
        "exec foot -o colors.background=123456 -o colors.foreground=fedcba -o main.pad=0x0 {rest}"
    )
}

/// foot's background.
const BLUE: [u8; 3] = [0x12, 0x34, 0x56];

/// xterm's background.
const BROWN: [u8; 3] = [0x65, 0x43, 0x21];

/// More pixels than a pointer has in two places.
const POINTER: usize = 4_000;

/// Most of the screen of 1280 by 800.
const MOST: usize = 900_000;

fn a_terminal_shows_its_colours_and_takes_text(home: &mut Home) {
    let screen = screen(home);
    let _foot = home.program(&foot(
        "-T Terminal sh -c 'read line; echo \"$line\" > /tmp/heard; echo \"$line\"; sleep 600'",
    ));
    let shown = screen.wait_for_windows(1);
    let (title, app_id) = &shown[0];
    assert_eq!(title, "[termina] Terminal");
    assert_eq!(app_id, "org.testudo.vm.termina.foot");
    eventually("foot's background", || count(&screen, BLUE) > MOST);
    screen.type_text("Grüße, 123");
    let heard = soon("typed text", || {
        Some(home.shell("cat /tmp/heard").text()).filter(|text| !text.is_empty())
    });
    assert_eq!(heard, "Grüße, 123");
    eventually("text on the screen", || {
        count(&screen, [0xfe, 0xdc, 0xba]) > 50
    });
    screen.keep("foot");
}

fn closing_a_window_stops_nothing_else(home: &mut Home) {
    let screen = screen(home);
    let _first = home.program(&foot("-T First sleep 600"));
    let _ = screen.wait_for_windows(1);
    let mut second = home.program(&foot("-T Second sleep 600"));
    let _ = screen.wait_for_windows(2);
    screen.close("[termina] Second");
    let left = screen.wait_for_windows(1);
    assert_eq!(left[0].0, "[termina] First");
    let _ended = second.0.wait().expect("it is our child");
    let _ = home.shell("true").ok();
}

fn a_gtk_program_shows_itself(home: &mut Home) {
    let screen = screen(home);
    let empty = screen.still_picture();
    let _demo = home.program("GSK_RENDERER=cairo exec gtk4-widget-factory");
    let shown = screen.wait_for_windows(1);
    assert!(shown[0].0.starts_with("[termina] "), "{shown:?}");
    assert!(
        shown[0].1.starts_with("org.testudo.vm.termina."),
        "{shown:?}"
    );
    let whole = soon("a drawn window", || {
        let picture = screen.still_picture();
        let changed = pixels(&picture)
            .zip(pixels(&empty))
            .filter(|(one, other)| one != other);
        (changed.count() > MOST).then_some(picture)
    });
    // Widgets, not one plain area: many colours.
    let colours: std::collections::BTreeSet<_> = pixels(&whole).collect();
    assert!(colours.len() > 64, "{} colours", colours.len());
    screen.keep("gtk4-widget-factory");
}

fn x_programs_show_themselves_and_take_text_and_pointer(home: &mut Home) {
    let screen = screen(home);
    let listen = "read line; echo \"$line\" > /tmp/heard-x; sleep 600";
    let _xterm = home.program(&format!(
        "exec xterm -bg '#654321' -fg '#ffffff' -T 'X terminal' -e sh -c '{listen}'"
    ));
    let shown = screen.wait_for_windows(1);
    assert_eq!(
        shown,
        [(
            "[termina] X terminal".to_owned(),
            "org.testudo.vm.termina.XTerm".to_owned()
        )]
    );
    eventually("xterm's background", || count(&screen, BROWN) > MOST);
    screen.type_text("typed into X");
    let heard = soon("typed text", || {
        Some(home.shell("cat /tmp/heard-x").text()).filter(|text| !text.is_empty())
    });
    assert_eq!(heard, "typed into X");
    let _eyes = home.program("exec xeyes");
    let all = screen.wait_for_windows(2);
    assert!(
        all.iter().any(|(title, _)| title == "[termina] xeyes"),
        "{all:?}"
    );
    eventually("eyes beside it", || {
        count(&screen, BROWN) < MOST * 2 / 3 && count(&screen, [0xff; 3]) > MOST / 10
    });
    // Eyes follow the pointer: more of the picture changes than the pointer itself.
    screen.move_pointer(700, 100);
    let before = screen.still_picture();
    screen.keep("xterm-and-xeyes");
    screen.move_pointer(1200, 700);
    eventually("eyes that follow the pointer", || {
        let now = screen.picture();
        let changed = pixels(&now).zip(pixels(&before));
        changed.filter(|(now, before)| now != before).count() > POINTER
    });
}

fn the_clipboard_crosses_both_ways(home: &mut Home) {
    let screen = screen(home);
    let _foot = home.program(&foot("sleep 600"));
    let _ = screen.wait_for_windows(1);
    let text: String = (0..100_000).map(|number| format!("{number} ")).collect();
    screen
        .program("wl-copy")
        .args(["-t", "text/plain;charset=utf-8"])
        .serve(text.as_bytes());
    let pasted = home.shell("timeout 60 wl-paste -n").ok();
    assert!(
        pasted.stdout == text.as_bytes(),
        "{} of {} bytes",
        pasted.stdout.len(),
        text.len()
    );
    let back = "seq 1 100000 | tr '\\n' ',' | timeout 60 wl-copy >/dev/null 2>&1";
    let _ = home.shell(back).ok();
    let expected: String = (1..=100_000).map(|number| format!("{number},")).collect();
    soon("the container's text on the host", || {
        let got = screen.program("wl-paste").args(["-n"]).run_with(&[]).stdout;
        (got == expected.as_bytes()).then_some(())
    });
}

fn the_x_clipboard_crosses_both_ways(home: &mut Home) {
    let screen = screen(home);
    let _xterm = home.program("exec xterm -e sleep 600");
    let _ = screen.wait_for_windows(1);
    screen.program("wl-copy").serve(b"from the host");
    let pasted = home.shell("timeout 60 xclip -o -selection clipboard").ok();
    assert_eq!(pasted.text(), "from the host");
    // The compositor takes a selection only from a program that was just used.
    screen.type_text("x");
    let _ = home
        .shell("echo from X | timeout 60 xclip -i -selection clipboard >/dev/null 2>&1")
        .ok();
    soon("X's text on the host", || {
        let got = screen.program("wl-paste").args(["-n"]).run_with(&[]).stdout;
        (got == b"from X\n").then_some(())
    });
}

fn another_desktop_gets_the_next_window(home: &mut Home) {
    let first = screen(home);
    let _stays = home.program(&foot("-T Stays sleep 600"));
    let _ = first.wait_for_windows(1);
    // A second desktop of the same user, in a runtime folder of its own.
    let folder = home.path("second");
    std::fs::create_dir_all(&folder).expect("the folder is ours");
    let second = Screen::in_runtime(&folder);
    let path = folder.join(&second.display);
    home.set_display(Some(path.to_str().expect("the folder is text")));
    let _goes = home.program(&foot("-T Goes sleep 600"));
    assert_eq!(second.wait_for_windows(1)[0].0, "[termina] Goes");
    assert_eq!(first.wait_for_windows(1)[0].0, "[termina] Stays");
}

fn a_killed_host_end_is_replaced(home: &mut Home) {
    let screen = screen(home);
    let mut lost = home.program(&foot("-T Lost sleep 600"));
    let _ = screen.wait_for_windows(1);
    assert!(home.kill(Role::Windows) > 0);
    let _ = screen.wait_for_windows(0);
    let _ended = lost.0.wait().expect("it is our child");
    // The VM and its shell do not notice.
    let _ = home.shell("true").ok();
    let _next = home.program(&foot("-T Next sleep 600"));
    assert_eq!(screen.wait_for_windows(1)[0].0, "[termina] Next");
}

fn nothing_is_shown_after_the_desktop_has_gone(home: &mut Home) {
    let screen = screen(home);
    let _foot = home.program(&foot("sleep 600"));
    let _ = screen.wait_for_windows(1);
    drop(screen);
    home.set_display(None);
    let told = home.shell("timeout 60 foot true");
    assert_ne!(told.code, 0);
    assert!(
        told.errors().contains("cannot reach the compositor"),
        "{told}"
    );
}
