//! Every crate is on the map.

use crate::dependencies::{folder, metadata};
use crate::{none, tree};

/// Two printed pages.
const ARCHITECTURE_LINES_MAX: usize = 130;

#[test]
fn every_crate_has_a_line_in_the_architecture() {
    let metadata = metadata();
    let map = std::fs::read_to_string(tree::root().join("ARCHITECTURE.md")).unwrap();
    let missing = |folder: &String| {
        !map.lines()
            .any(|line| line.contains(&format!("`{folder}/`")))
    };
    let folders = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| folder(&metadata, package));
    none(
        "crates are not in ARCHITECTURE.md",
        &folders.filter(missing).collect::<Vec<_>>(),
    );
}

#[test]
fn the_architecture_fits_two_pages() {
    let map = std::fs::read_to_string(tree::root().join("ARCHITECTURE.md")).unwrap();
    assert!(
        map.lines().count() <= ARCHITECTURE_LINES_MAX,
        "{} lines",
        map.lines().count()
    );
}

#[test]
fn every_crate_obeys_the_lint_table() {
    let manifests = tree::files(&["Cargo.toml"]);
    let free = manifests.into_iter().filter(|file| {
        file.path != "Cargo.toml"
            && !file.path.starts_with("fuzz/")
            && !file.text.contains("[lints]\nworkspace = true")
    });
    none(
        "manifests lack `[lints] workspace = true`",
        &free.map(|file| file.path).collect::<Vec<_>>(),
    );
}
