//! The work tree as the checks see it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One text file of the tree.
pub(crate) struct File {
    /// From the repository's root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Returns the repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the root")
        .to_owned()
}

/// Returns every path that git tracks or would track.
pub(crate) fn paths() -> Vec<String> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .expect("git is here");
    assert!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed = String::from_utf8(output.stdout).expect("paths of this repository are UTF-8");
    let present = |path: &&str| !path.is_empty() && root().join(path).is_file();
    listed
        .split('\0')
        .filter(present)
        .map(str::to_owned)
        .collect()
}

/// Returns the files whose names end in one of `endings`; one that is not text is an error of the tree.
pub(crate) fn files(endings: &[&str]) -> Vec<File> {
    let wanted = |path: &String| endings.iter().any(|ending| path.ends_with(ending));
    paths()
        .into_iter()
        .filter(wanted)
        .map(|path| {
            let text = std::fs::read_to_string(root().join(&path))
                .unwrap_or_else(|error| panic!("cannot read {path} as text: {error}"));
            File { path, text }
        })
        .collect()
}
