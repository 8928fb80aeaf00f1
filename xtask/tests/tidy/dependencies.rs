//! Dependencies point down (ARCHITECTURE.md, code map): a crate knows only crates of a lower rank, so programs never know
//! programs, and `host/`, `guest/` and `container/` never see each other.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use crate::{none, tree};

/// Each room's rank, the longest prefix of a crate's folder counting.
const RANKS: &[(&str, u8)] = &[
    ("spec", 0),
    ("wire", 0),
    ("sys", 0),
    ("link", 1),
    ("wayland", 1),
    ("virtio", 2),
    ("devices/", 3),
    ("vmm", 4),
    ("host/", 4),
    ("guest/", 4),
    ("container/", 4),
    ("tests/fakes", 4),
    ("tests/fixture", 5),
    ("tests/", 6),
    ("fuzz", 6),
    ("xtask", 6),
];

/// Rooms of threads (docs/adr/0009), and those that belong to neither side.
const WITHOUT_TOKIO: &[&str] = &["spec", "sys", "virtio", "devices/", "vmm"];

pub(crate) fn metadata() -> Metadata {
    MetadataCommand::new()
        .current_dir(tree::root())
        .exec()
        .expect("cargo metadata answers")
}

/// Returns a package's folder from the root.
pub(crate) fn folder(metadata: &Metadata, package: &Package) -> String {
    let folder = package
        .manifest_path
        .parent()
        .expect("a manifest lies in a folder");
    let inside = folder
        .strip_prefix(&metadata.workspace_root)
        .expect("members lie in the root");
    inside.to_string()
}

fn rank(folder: &str) -> Option<u8> {
    let fits = |prefix: &&(&str, u8)| {
        folder == prefix.0 || (prefix.0.ends_with('/') && folder.starts_with(prefix.0))
    };
    RANKS
        .iter()
        .filter(fits)
        .max_by_key(|(prefix, _)| prefix.len())
        .map(|(_, rank)| *rank)
}

#[test]
fn dependencies_point_down() {
    let metadata = metadata();
    let mut offences = Vec::new();
    for package in metadata.workspace_packages() {
        let from = folder(&metadata, package);
        let Some(own) = rank(&from) else {
            offences.push(format!(
                "{from}: a new room; give it a rank here and a line in ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let Some(path) = &dependency.path else {
                continue;
            };
            let to = path
                .strip_prefix(&metadata.workspace_root)
                .expect("ours lie in the root")
                .to_string();
            // Tests may use the fakes and what they check.
            let only_tests = dependency.kind == DependencyKind::Development;
            if !only_tests && rank(&to).is_none_or(|rank| rank >= own) {
                offences.push(format!("{from} depends on {to}"));
            }
        }
    }
    none("dependencies do not point down", &offences);
}

#[test]
fn threads_and_tokio_stay_apart() {
    let metadata = metadata();
    let mut offences = Vec::new();
    for package in metadata.workspace_packages() {
        let from = folder(&metadata, package);
        let apart = WITHOUT_TOKIO
            .iter()
            .any(|room| from == *room || (room.ends_with('/') && from.starts_with(room)));
        let asks = |kind: DependencyKind, name: &str| {
            kind != DependencyKind::Development && name.starts_with("tokio")
        };
        if apart
            && package
                .dependencies
                .iter()
                .any(|dependency| asks(dependency.kind, &dependency.name))
        {
            offences.push(from);
        }
    }
    none(
        "crates of the thread side depend on tokio (docs/adr/0009)",
        &offences,
    );
}

#[test]
fn versions_stand_in_the_root_manifest_only() {
    let mut offences = Vec::new();
    for file in tree::files(&["Cargo.toml"]) {
        // fuzz/ is a workspace of its own, as cargo-fuzz wants it.
        if file.path == "Cargo.toml" || file.path.starts_with("fuzz/") {
            continue;
        }
        let mut inside = false;
        for line in file.text.lines() {
            if line.starts_with('[') {
                inside = line.ends_with("dependencies]");
            } else if inside && (line.contains("= \"") || line.contains("version =")) {
                offences.push(format!("{}: {line}", file.path));
            }
        }
    }
    none("write `name.workspace = true`", &offences);
}
