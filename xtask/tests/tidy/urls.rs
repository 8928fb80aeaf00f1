//! The tree names no package mirror, no registry and no folder of a developer's machine: those are taken from the
//! machine it runs on.

use crate::{none, tree};

/// Hosts that may be named: reserved names, and documents that a reader may want.
const HOSTS: &[&str] = &[
    "www.apache.org",
    "peer.invalid",
    "localhost",
    "127.0.0.1",
    "[::1]",
    "json-schema.org",
    "www.freedesktop.org",
    "wayland.freedesktop.org",
    "docs.oasis-open.org",
    "www.rfc-editor.org",
    "keepachangelog.com",
    "semver.org",
];

/// Ends of names that RFC 2606 and RFC 6761 reserve.
const RESERVED: &[&str] = &[
    ".invalid",
    ".test",
    ".example",
    ".localhost",
    "example.org",
    "example.com",
    "example.net",
];

/// Words that only a particular machine knows.
fn of_a_machine() -> Vec<String> {
    // Spelled in two parts, so that this file passes its own check.
    [
        ("/wo", "rk/"),
        ("/tmp/", "team"),
        ("deb.", "debian.org"),
        ("security.", "debian.org"),
        ("static.", "crates.io"),
        ("/ro", "ot/.cargo"),
    ]
    .map(|(one, other)| format!("{one}{other}"))
    .to_vec()
}

#[test]
fn no_address_of_a_machine_is_in_the_tree() {
    let mut offences = Vec::new();
    for file in tree::files(&[
        ".rs", ".md", ".toml", ".proto", ".config", ".json", ".service", ".socket", "run",
    ]) {
        for (number, line) in file.text.lines().enumerate() {
            let place = || format!("{}:{}", file.path, number + 1);
            let words = of_a_machine()
                .into_iter()
                .filter(|word| line.contains(word.as_str()));
            offences.extend(words.map(|word| format!("{}: {word}", place())));
            let strange = hosts(line).filter(|host| {
                !HOSTS.contains(host) && !RESERVED.iter().any(|end| host.ends_with(end))
            });
            offences.extend(strange.map(|host| format!("{}: {host}", place())));
        }
    }
    none("addresses that belong to a machine", &offences);
}

/// Returns the host of each URL in `line` that has a literal one.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    let after = line.split("://").skip(1);
    after.filter_map(|rest| {
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || ".-[]:".contains(c)))
            .unwrap_or(rest.len());
        let host = &rest[..end];
        let host = if host.starts_with('[') {
            host
        } else {
            host.split(':').next()?
        };
        host.contains('.').then_some(host.trim_end_matches('.'))
    })
}
