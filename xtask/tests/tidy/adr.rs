//! Decisions have unique numbers without gaps, a status, and the five headings that make one page.

use crate::{none, tree};

/// One page.
const LINES_MAX: usize = 60;

const HEADINGS: &[&str] = &[
    "**Status:**",
    "## Context",
    "## Decision",
    "## Consequences",
    "## What we did not choose",
];

#[test]
fn decisions_are_numbered_and_whole() {
    let mut decisions: Vec<_> = tree::files(&[".md"])
        .into_iter()
        .filter(|file| file.path.starts_with("docs/adr/"))
        .collect();
    decisions.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!decisions.is_empty(), "docs/adr/ is empty");
    let mut offences = Vec::new();
    for (index, file) in decisions.iter().enumerate() {
        let number = index + 1;
        if !file.path.starts_with(&format!("docs/adr/{number:04}-")) {
            offences.push(format!("{}: expected number {number}", file.path));
        }
        if !file.text.starts_with(&format!("# {number}. ")) {
            offences.push(format!("{}: its title is not `# {number}. …`", file.path));
        }
        let missing = HEADINGS
            .iter()
            .filter(|heading| !file.text.contains(**heading));
        offences.extend(missing.map(|heading| format!("{}: no {heading}", file.path)));
        if file.text.lines().count() > LINES_MAX {
            offences.push(format!("{}: longer than a page", file.path));
        }
    }
    none("decisions are not in order", &offences);
}

/// Every citation in the tree, `ADR` with a number or a path of `docs/adr`, names a decision that exists.
#[test]
fn cited_decisions_exist() {
    let decisions = tree::paths()
        .into_iter()
        .filter(|path| path.starts_with("docs/adr/"))
        .count();
    let mut offences = Vec::new();
    for file in tree::files(&[".rs", ".md", ".toml", ".proto"]) {
        for mark in ["ADR ", "docs/adr/"] {
            for rest in file.text.split(mark).skip(1) {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                if digits
                    .parse::<usize>()
                    .is_ok_and(|number| number == 0 || number > decisions)
                {
                    offences.push(format!("{}: {mark}{digits}", file.path));
                }
            }
        }
    }
    none("cited decisions do not exist", &offences);
}
