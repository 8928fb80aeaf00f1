//! A silenced lint says why, and no test is skipped.

use crate::{none, tree};

/// Lines that an attribute may span until its reason.
const SPAN: usize = 10;

#[test]
fn a_silenced_lint_says_why() {
    let mut offences = Vec::new();
    for file in tree::files(&[".rs"]) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let line = line.trim_start();
            let silences = ["#[allow(", "#![allow(", "#[expect(", "#![expect("]
                .iter()
                .any(|start| line.starts_with(start));
            let attribute = lines[number..lines.len().min(number + SPAN)].join(" ");
            let attribute = attribute.split(")]").next().unwrap_or_default();
            if silences && !attribute.contains("reason = ") {
                offences.push(format!("{}:{}", file.path, number + 1));
            }
        }
    }
    none("silenced lints have no reason", &offences);
}

#[test]
fn no_test_is_skipped() {
    let mut offences = Vec::new();
    for file in tree::files(&[".rs"]) {
        let skips = |line: &&str| {
            line.trim_start().starts_with("#[ignore")
                || line.trim_start().starts_with("#[should_panic")
        };
        offences.extend(
            file.text
                .lines()
                .filter(skips)
                .map(|line| format!("{}: {line}", file.path)),
        );
    }
    none("tests are skipped or expect a panic", &offences);
}

#[test]
fn open_ends_have_an_issue() {
    let mut offences = Vec::new();
    for file in tree::files(&[".rs", ".proto", ".toml"]) {
        // This file names what it looks for.
        if file.path.ends_with("tidy/attributes.rs") {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            let open = ["TODO", "FIXME", "XXX", "HACK", "unimplemented!"]
                .iter()
                .any(|mark| line.contains(mark));
            if open && !line.contains("issue ") {
                offences.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    none("open ends name no issue", &offences);
}
