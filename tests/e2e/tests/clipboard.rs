//! The clipboard's modes: nothing crosses between host and container unless somebody lets it.
//!
//! Method: a headless compositor of the test's own is the desktop, a terminal has the focus in the container, and a person sits
//! at a terminal of the host. End to end, because the question is asked in one process, passed on by a second and answered in a
//! third.

use fixture::{Home, walk};
use windows::{Screen, soon};

walk!(programs_are_installed, the_clipboard_obeys_its_mode);

/// What a user would type.
const INSTALL: &str = "sudo apt-get update 2>&1 && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y \
    --no-install-recommends foot fonts-dejavu-core wl-clipboard 2>&1";

fn programs_are_installed(home: &mut Home) {
    let _ = home.shell(INSTALL).ok();
}

fn the_clipboard_obeys_its_mode(home: &mut Home) {
    let screen = Screen::in_runtime(&home.path("run"));
    home.set_display(Some(&screen.display));
    let _foot = home.program("exec foot sleep 600");
    let _ = screen.wait_for_windows(1);
    screen.program("wl-copy").serve(b"once");
    let paste = "timeout 60 wl-paste -n 2>/dev/null";
    let _ = home.testudo(&["set", "clipboard=explicit"]).ok();
    assert_eq!(home.shell(paste).text(), "", "nobody let it cross");
    let _ = home.testudo(&["clipboard", "to-guest"]).ok();
    assert_eq!(home.shell(paste).text(), "once");
    assert_eq!(home.shell(paste).text(), "", "it crossed once");
    let _ = home.testudo(&["set", "clipboard=ask"]).ok();
    assert_eq!(home.shell(paste).text(), "", "nobody was asked");
    let mut person = home.terminal("testudo", &["clipboard"]);
    person.see("until Ctrl-C");
    let _pasting = home.program(&format!("{paste} > /tmp/pasted"));
    person.see("termina wants what was copied on the host (text/plain");
    person.type_in("y\n");
    let pasted = soon("what was asked about", || {
        Some(home.shell("cat /tmp/pasted").text()).filter(|text| !text.is_empty())
    });
    assert_eq!(pasted, "once");
    let _ = home.testudo(&["set", "clipboard=on"]).ok();
    assert_eq!(home.shell(paste).text(), "once");
}
