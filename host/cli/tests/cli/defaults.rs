//! Which container is meant when none is named.

use crate::desk::Desk;

#[test]
fn a_choice_is_kept_and_can_be_forgotten() {
    let desk = Desk::new();
    assert_eq!(
        desk.run("testudo", &["default"]).text(),
        "penguin in termina\n"
    );
    assert_eq!(
        desk.run("testudo", &["default", "dev"]).text(),
        "dev in termina\n"
    );
    assert!(
        desk.run("testudo", &["info"])
            .text()
            .starts_with("name:      dev\n")
    );
    assert_eq!(
        desk.run("testudo", &["default", "--vm", "lab"]).text(),
        "dev in lab\n"
    );
    assert_eq!(
        desk.run("testudo", &["default", "--clear"]).text(),
        "penguin in termina\n"
    );
}

#[test]
fn the_users_configuration_is_read_and_never_written() {
    let desk = Desk::new();
    let folder = desk.path("config/testudo");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), "container = \"dev\" # mine\n").unwrap();
    assert_eq!(desk.run("testudo", &["default"]).text(), "dev in termina\n");
    desk.run("testudo", &["default", "penguin"]);
    let text = std::fs::read_to_string(folder.join("config.toml")).unwrap();
    assert_eq!(text, "container = \"dev\" # mine\n");
    std::fs::write(folder.join("config.toml"), "contaner = \"dev\"\n").unwrap();
    let shown = desk.run("testudo", &["list"]);
    assert_eq!(shown.status, 0, "what needs no default works: {shown}");
    let shown = desk.run("testudo", &["info"]);
    assert!(
        shown
            .stderr
            .contains("cause: line 1: unknown field `contaner`"),
        "{shown}"
    );
    assert_eq!(shown.status, 1);
}

#[test]
fn colour_is_for_terminals_unless_told_otherwise() {
    let desk = Desk::new();
    let escapes = |variables: &[(&str, &str)], arguments: &[&str]| {
        let output = desk
            .command("vmc", arguments)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        output.stdout.contains(&0x1b)
    };
    assert!(!escapes(&[], &["list"]));
    assert!(escapes(&[], &["--color", "always", "list"]));
    assert!(escapes(&[("CLICOLOR_FORCE", "1")], &["list"]));
    assert!(!escapes(
        &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")],
        &["list"]
    ));
    assert!(!escapes(
        &[("CLICOLOR_FORCE", "1")],
        &["list", "--color=never"]
    ));
}
