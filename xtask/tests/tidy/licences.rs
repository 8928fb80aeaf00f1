//! Every dependency comes from a registry and has a licence that deny.toml lists. cargo-deny reads the same file; this
//! check needs nothing to be installed.

use std::collections::BTreeSet;

use crate::dependencies::metadata;
use crate::{none, tree};

#[derive(serde::Deserialize)]
struct Deny {
    licenses: Licences,
}

#[derive(serde::Deserialize)]
struct Licences {
    allow: BTreeSet<String>,
}

fn allowed() -> BTreeSet<String> {
    let text = std::fs::read_to_string(tree::root().join("deny.toml")).expect("deny.toml is there");
    toml::from_str::<Deny>(&text)
        .expect("deny.toml lists licences")
        .licenses
        .allow
}

#[test]
fn every_dependency_has_a_listed_licence() {
    let allowed = allowed();
    let mut offences = Vec::new();
    for package in metadata()
        .packages
        .iter()
        .filter(|package| package.source.is_some())
    {
        let licence = package.license.clone().unwrap_or_default();
        if !satisfied(&licence, &allowed) {
            offences.push(format!("{} {}: {licence:?}", package.name, package.version));
        }
    }
    none("licences are not listed in deny.toml", &offences);
}

#[test]
fn every_dependency_comes_from_a_registry() {
    let metadata = metadata();
    let foreign = metadata.packages.iter().filter(|package| {
        package
            .source
            .as_ref()
            .is_some_and(|source| !source.repr.starts_with("registry+"))
    });
    none(
        "dependencies come from elsewhere",
        &foreign
            .map(|package| package.name.to_string())
            .collect::<Vec<_>>(),
    );
}

/// Whether one choice in the SPDX expression needs only `allowed` licences.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    // Cargo's older form separates choices with a slash.
    let expression = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let mut rest = words.as_slice();
    !words.is_empty() && choice(&mut rest, allowed) && rest.is_empty()
}

fn choice(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut good = all(rest, allowed);
    while let Some(after) = rest.strip_prefix(&["OR"]) {
        *rest = after;
        good |= all(rest, allowed);
    }
    good
}

fn all(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut good = one(rest, allowed);
    while let Some(after) = rest.strip_prefix(&["AND"]) {
        *rest = after;
        good &= one(rest, allowed);
    }
    good
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let Some((word, after)) = rest.split_first() else {
        return false;
    };
    *rest = after;
    if *word == "(" {
        let good = choice(rest, allowed);
        let Some(after) = rest.strip_prefix(&[")"]) else {
            return false;
        };
        *rest = after;
        return good;
    }
    match rest {
        ["WITH", exception, after @ ..] => {
            let with = format!("{word} WITH {exception}");
            *rest = after;
            allowed.contains(&with)
        }
        _ => allowed.contains(*word),
    }
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = BTreeSet::from([
        "MIT".to_owned(),
        "Apache-2.0 WITH LLVM-exception".to_owned(),
    ]);
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "(GPL-3.0 OR MIT) AND MIT",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(satisfied(good, &allowed), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "Apache-2.0",
        "(MIT",
        "MIT )",
    ] {
        assert!(!satisfied(bad, &allowed), "{bad}");
    }
}
