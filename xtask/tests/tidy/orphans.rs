//! Every source file is compiled by somebody, and opens by saying what happens in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::dependencies::metadata;
use crate::{none, tree};

#[test]
fn no_source_file_is_an_orphan() {
    let root = tree::root();
    let mut reached = BTreeSet::new();
    for package in metadata().workspace_packages() {
        for target in &package.targets {
            follow(target.src_path.as_std_path(), true, &mut reached);
        }
    }
    // fuzz/ is a workspace of its own; cargo-fuzz names each target's file in its manifest.
    let targets = root.join("fuzz/fuzz_targets");
    for entry in std::fs::read_dir(&targets).into_iter().flatten().flatten() {
        let manifest = std::fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap_or_default();
        if manifest.contains(&*entry.file_name().to_string_lossy()) {
            follow(&entry.path(), true, &mut reached);
        }
    }
    let orphans = tree::paths()
        .into_iter()
        .filter(|path| path.ends_with(".rs") && !reached.contains(&root.join(path)));
    none(
        "no crate compiles these files",
        &orphans.collect::<Vec<_>>(),
    );
}

#[test]
fn every_source_file_says_what_happens_in_it() {
    let silent = |file: &tree::File| !file.text.starts_with("//!") && !file.text.starts_with("#!/");
    none(
        "files do not open with `//!`",
        &tree::files(&[".rs"])
            .into_iter()
            .filter(silent)
            .map(|file| file.path)
            .collect::<Vec<_>>(),
    );
}

/// Adds `file` and the files of its modules.
fn follow(file: &Path, is_root: bool, reached: &mut BTreeSet<PathBuf>) {
    let Ok(text) = std::fs::read_to_string(file) else {
        return;
    };
    if !reached.insert(file.to_owned()) {
        return;
    }
    let folder = file.parent().expect("a file lies in a folder");
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let inside = if is_root || stem == "mod" {
        folder.to_owned()
    } else {
        folder.join(stem)
    };
    let mut path_attribute = None;
    for line in text.lines().map(str::trim) {
        if let Some(path) = line
            .strip_prefix("#[path = \"")
            .and_then(|rest| rest.strip_suffix("\"]"))
        {
            path_attribute = Some(folder.join(path));
        } else if let Some(name) = module(line) {
            let candidates = [
                inside.join(format!("{name}.rs")),
                inside.join(name).join("mod.rs"),
            ];
            for candidate in path_attribute.take().into_iter().chain(candidates) {
                follow(&candidate, false, reached);
            }
        }
    }
}

/// Returns the name in `mod name;`, whatever its visibility.
fn module(line: &str) -> Option<&str> {
    let declaration = line.strip_suffix(';')?;
    let (before, name) = declaration.rsplit_once("mod ")?;
    (before.is_empty() || before.starts_with("pub")).then_some(name)
}
