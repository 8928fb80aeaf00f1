//! Parses the `.list` files of image/: which packages a root file system is drawn from and which of
//! their files stay.
//!
//! ```text
//! package NAME      drawn from, with everything it depends on
//! keep    PATTERN   stays, with the folders above it and what its links lead to
//! drop    PATTERN   goes, though a `keep` names it
//! ```
//! A pattern is a path; `*` stands for anything within a name, `**` at its end for everything below.

use anyhow::{Result, bail};

/// A parsed list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    /// Names of packages.
    pub(super) packages: Vec<String>,
    /// Patterns of what stays, without a slash in front.
    pub(super) keep: Vec<String>,
    /// Patterns of what goes all the same.
    pub(super) drop: Vec<String>,
}

impl List {
    /// Parses a list's text.
    ///
    /// # Errors
    /// When a line is not of the form above; the error has its number.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut list = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                ["package", name] => list.packages.push((*name).to_owned()),
                ["keep", pattern] if pattern.starts_with('/') => {
                    list.keep.push(pattern[1..].to_owned());
                }
                ["drop", pattern] if pattern.starts_with('/') => {
                    list.drop.push(pattern[1..].to_owned());
                }
                _ => bail!(
                    "line {}: `{}` is not `package NAME`, `keep /PATH` or `drop /PATH`",
                    index + 1,
                    line.trim()
                ),
            }
        }
        Ok(list)
    }

    /// Returns whether `path` stays.
    pub(super) fn keeps(&self, path: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, path));
        any(&self.keep) && !any(&self.drop)
    }
}

/// Returns whether `path` is what `pattern` names.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let mut names = path.split('/');
    for part in pattern.split('/') {
        if part == "**" {
            return names.next().is_some();
        }
        if !names.next().is_some_and(|name| name_matches(part, name)) {
            return false;
        }
    }
    names.next().is_none()
}

fn name_matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(tail) = name.strip_prefix(head) else {
        return false;
    };
    (0..=tail.len()).any(|start| tail.is_char_boundary(start) && name_matches(rest, &tail[start..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_and_whole_folders() {
        let cases = [
            ("usr/bin/lxc-start", "usr/bin/lxc-start", true),
            ("usr/bin/lxc-start", "usr/bin/lxc-stop", false),
            ("usr/bin/lxc-*", "usr/bin/lxc-start", true),
            ("usr/lib/lib*.so.*", "usr/lib/libc.so.6", true),
            ("usr/lib/lib*.so.*", "usr/lib/x/libc.so.6", false),
            ("usr/share/lxc/**", "usr/share/lxc/config/common.conf", true),
            ("usr/share/lxc/**", "usr/share/lxc", false),
            ("usr", "usr/bin", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn dropped_paths_go_though_kept() {
        let list = List::parse("keep /usr/** # all\ndrop /usr/share/doc/**\n").unwrap();
        assert!(list.keeps("usr/bin/sh") && !list.keeps("usr/share/doc/sh/copyright"));
    }

    #[test]
    fn unknown_word_is_refused_with_its_line() {
        let error = List::parse("package lxc\nkeep usr/bin\n")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("line 2"), "{error}");
    }
}
