//! X programs of the container on a Wayland-only host: windows, names, text, and both selections.

use windows::{Options, Screen, Stage, eventually, soon};

fn stage() -> (Screen, Stage) {
    let screen = Screen::new();
    let stage = Stage::new(&screen, &Options::default());
    (screen, stage)
}

#[test]
fn x_programs_get_windows_with_names_and_take_text() {
    let (screen, stage) = stage();
    let heard = screen.runtime().join("heard");
    let listen = format!("read line; echo \"$line\" > {}; sleep 600", heard.display());
    let xterm = stage
        .program("xterm")
        .args(["-T", "X terminal", "-e", "sh", "-c", &listen])
        .start();
    assert_eq!(
        screen.wait_for_windows(1),
        [(
            "[penguin] X terminal".to_owned(),
            "org.testudo.vm.penguin.XTerm".to_owned()
        )]
    );
    eventually("a drawn window", || {
        screen
            .picture()
            .chunks(3)
            .filter(|pixel| *pixel == [255; 3])
            .count()
            > 400_000
    });
    screen.type_text("typed into X");
    soon("typed text", || {
        std::fs::read_to_string(&heard)
            .ok()
            .filter(|text| text == "typed into X\n")
    });
    let eyes = stage.program("xeyes").start();
    let all = screen.wait_for_windows(2);
    assert!(
        all.iter()
            .any(|(title, id)| title == "[penguin] xeyes" && id.ends_with(".XEyes")),
        "{all:?}"
    );
    drop((eyes, xterm));
    let _ = screen.wait_for_windows(0);
}

#[test]
fn selections_cross_between_x_and_the_host_whole() {
    let (screen, stage) = stage();
    let _xterm = stage.program("xterm").args(["-e", "sleep", "600"]).start();
    let _ = screen.wait_for_windows(1);
    let text: String = (0..300_000).map(|n| format!("{n} ")).collect();
    for (selection, flag) in [("clipboard", None), ("primary", Some("-p"))] {
        for size in [10, 1000, text.len()] {
            let part = &text[..size];
            // The compositor takes a selection only from a program that was just used.
            screen.type_text("x");
            stage
                .program("xclip")
                .args(["-i", "-selection", selection])
                .serve(part.as_bytes());
            let paste = || {
                screen
                    .program("wl-paste")
                    .args(["-n"])
                    .args(flag)
                    .run_with(&[])
                    .stdout
            };
            soon(&format!("{size} bytes from X in {selection}"), || {
                (paste() == part.as_bytes()).then_some(())
            });

            let back = part.to_uppercase().replace(' ', ",");
            screen
                .program("wl-copy")
                .args(["-t", "text/plain;charset=utf-8"])
                .args(flag)
                .serve(back.as_bytes());
            let paste = || {
                stage
                    .program("xclip")
                    .args(["-o", "-selection", selection])
                    .run_with(&[])
                    .stdout
            };
            soon(&format!("{size} bytes to X in {selection}"), || {
                (paste() == back.as_bytes()).then_some(())
            });
        }
    }
}
