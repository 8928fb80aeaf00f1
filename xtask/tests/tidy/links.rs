//! Every link and every path in a document leads somewhere.

use std::path::Path;

use crate::{none, tree};

/// First parts of a path that make a word in backticks a path of this repository.
const ROOMS: &[&str] = &[
    "container/",
    "devices/",
    "docs/",
    "fuzz/",
    "guest/",
    "host/",
    "image/",
    "link/",
    "proto/",
    "spec/",
    "sys/",
    "tests/",
    "virtio/",
    "vmm/",
    "wayland/",
    "wire/",
    "xtask/",
    ".cargo/",
    ".ci/",
];

#[test]
fn every_link_leads_somewhere() {
    let mut offences = Vec::new();
    for file in tree::files(&[".md"]) {
        let folder = Path::new(&file.path)
            .parent()
            .expect("a file lies in a folder");
        for target in link_targets(&file.text) {
            let local = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || local.is_empty();
            if !outside && !tree::root().join(folder).join(local).exists() {
                offences.push(format!("{}: {target}", file.path));
            }
        }
    }
    none("links lead nowhere", &offences);
}

#[test]
fn every_path_exists() {
    let mut offences = Vec::new();
    for file in tree::files(&[".md"]) {
        let folder = Path::new(&file.path)
            .parent()
            .expect("a file lies in a folder");
        for word in in_backticks(&file.text) {
            let path = word.split([':', '#']).next().unwrap_or_default();
            let shown = path.contains(['<', '{', '*', '…', ' ', '$']);
            let ours = ROOMS.iter().any(|room| path.starts_with(room));
            // A crate's own README speaks of its own files.
            let there = [Path::new(""), folder]
                .iter()
                .any(|from| tree::root().join(from).join(path).exists());
            if ours && !shown && !there {
                offences.push(format!("{}: {word}", file.path));
            }
        }
    }
    none("paths do not exist", &offences);
}

/// Returns the `target` of each `[text](target)`.
fn link_targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

/// Returns what stands between single backticks on one line; fenced blocks are left out.
pub(crate) fn in_backticks(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}
