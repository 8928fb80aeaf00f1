//! Things being built or taken apart: they have hidden names until they are whole, and are removed when the work
//! fails or the agent that did it is gone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::subvolume;

/// Container names never begin with it.
const HIDDEN: &str = ".";

/// A directory that is removed with all that it holds unless it is kept.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    kept: bool,
}

impl Scratch {
    /// Makes one in `folder`, named for the `act`.
    pub(super) fn new(folder: &Path, act: &str) -> io::Result<Self> {
        let path = name(folder, act);
        std::fs::create_dir(&path)?;
        Ok(Self { path, kept: false })
    }

    /// Moves what is at `from` out of sight, to be removed.
    pub(super) fn discard(folder: &Path, from: &Path) -> io::Result<Self> {
        let path = name(folder, "gone");
        std::fs::rename(from, &path)?;
        Ok(Self { path, kept: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its real name, in one step.
    pub(super) fn keep(mut self, to: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, to)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = subvolume::remove_all(&self.path)
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn name(folder: &Path, act: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!("{HIDDEN}{act}-{}-{count}", std::process::id()))
}

/// Removes what earlier agents have left in `folder`.
pub(crate) fn sweep(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(HIDDEN) {
            tracing::info!("removing the half-made {}", entry.path().display());
            subvolume::remove_all(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Scratch::new(folder.path(), "new").unwrap();
        std::fs::write(kept.path().join("file"), "x").unwrap();
        kept.keep(&folder.path().join("real")).unwrap();
        let lost = Scratch::new(folder.path(), "new").unwrap();
        std::fs::create_dir(lost.path().join("inner")).unwrap();
        drop(lost);
        let names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .flatten()
            .collect();
        assert_eq!(names.len(), 1);
        assert!(folder.path().join("real/file").exists());
    }

    #[test]
    fn a_new_agent_removes_what_a_killed_one_left() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join(".new-1-0/rootfs")).unwrap();
        std::fs::create_dir(folder.path().join("penguin")).unwrap();
        sweep(folder.path()).unwrap();
        let names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .flatten()
            .collect();
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].file_name(), "penguin");
    }
}
