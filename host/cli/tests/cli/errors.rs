//! docs/errors.md lists every code that the programs can say, and no other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where programs and the languages between them lie.
const ROOMS: [&str; 6] = ["host", "guest", "link", "wire", "container", "sys"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Adds the codes in quotes of every source file below `folder`, unit tests' own left out.
fn collect(folder: &Path, codes: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        if path.is_dir() && !matches!(name.as_str(), "tests" | "target") {
            collect(&path, codes);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = std::fs::read_to_string(&path).unwrap();
            let program = text.split("#[cfg(test)]").next().unwrap();
            codes.extend(
                program
                    .split('"')
                    .filter(|word| is_code(word))
                    .map(str::to_owned),
            );
        }
    }
}

fn is_code(word: &str) -> bool {
    word.strip_prefix("E-").is_some_and(|rest| {
        !rest.is_empty()
            && rest
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-')
    })
}

#[test]
fn every_code_is_documented_and_every_documented_code_exists() {
    let mut said = BTreeSet::new();
    for room in ROOMS {
        let folder = root().join(room);
        if folder.is_dir() {
            collect(&folder, &mut said);
        }
    }
    let text = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<_> = rows
        .filter(|code| is_code(code))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = said.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&said).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "undocumented: {missing:?}, gone: {stale:?}"
    );
}
