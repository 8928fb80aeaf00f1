//! What the repository promises about itself, checked: an ordinary test, on the developer's machine and in CI.
//!
//! Every check reads the work tree as git sees it (tracked files and new ones that are not ignored), collects all
//! offences and fails once with the whole list.

mod adr;
mod attributes;
mod crates;
mod dependencies;
mod licences;
mod links;
mod orphans;
mod sizes;
mod tree;
mod urls;
mod walks;
mod words;

/// Fails with every offence, one a line.
#[track_caller]
fn none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}
