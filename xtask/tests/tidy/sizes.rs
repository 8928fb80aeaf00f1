//! No file grows past what one reads in a sitting. Functions are clippy's business (`too_many_lines`).

use crate::{none, tree};

/// Lines of a source file, tests not counted.
const LINES_MAX: usize = 600;

/// PID 1 stays small enough to be read whole (docs/adr/0007).
const INIT: (&str, usize) = ("guest/maitred/src/init.rs", 150);

/// Files that were over the cap when it was introduced, with the lines they may have. A number here may only fall.
const RATCHET: &[(&str, usize)] = &[];

#[test]
fn no_file_is_longer_than_its_cap() {
    let mut offences = Vec::new();
    for file in tree::files(&[".rs"]) {
        if is_test(&file.path) {
            continue;
        }
        let lines = without_tests(&file.text);
        let cap = [INIT]
            .iter()
            .chain(RATCHET)
            .find(|(path, _)| *path == file.path)
            .map_or(LINES_MAX, |(_, cap)| *cap);
        if lines > cap {
            offences.push(format!("{}: {lines} lines, at most {cap}", file.path));
        }
    }
    none("files are too long", &offences);
}

#[test]
fn the_ratchet_holds_no_slack() {
    let files = tree::files(&[".rs"]);
    let slack = RATCHET.iter().filter(|(path, cap)| {
        let file = files.iter().find(|file| file.path == *path);
        file.is_none_or(|file| without_tests(&file.text) < *cap)
    });
    none(
        "the ratchet can be tightened",
        &slack
            .map(|(path, cap)| format!("{path}: {cap}"))
            .collect::<Vec<_>>(),
    );
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Returns the lines before the tests at a file's end.
fn without_tests(text: &str) -> usize {
    text.lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .count()
}
