//! Where things of the repository lie on the developer's machine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cargo_metadata::MetadataCommand;

/// The one target (docs/adr/0002); its name is part of every built program's path.
pub(crate) const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Returns the checkout that this xtask was built from.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the root")
}

/// Returns cargo's target folder.
///
/// # Errors
/// When cargo cannot read the workspace.
pub(crate) fn target() -> Result<PathBuf> {
    let metadata = MetadataCommand::new()
        .current_dir(root())
        .no_deps()
        .exec()
        .context("cannot ask cargo for its target folder")?;
    Ok(metadata.target_directory.into())
}

/// Returns a file for the output of the chore `name`, in a folder that exists.
///
/// # Errors
/// When the folder cannot be made.
pub(crate) fn log(name: &str) -> Result<PathBuf> {
    let folder = target()?.join("xtask");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.join(format!("{name}.log")))
}
