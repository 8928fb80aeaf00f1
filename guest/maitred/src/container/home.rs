//! Where a container's parts lie.

use std::path::{Path, PathBuf};

use wire::{ContainerName, Fault, SnapshotName};

use super::config::Config;

/// What belongs to containers in this boot only.
pub(super) const RUN: &str = "/run/testudo/containers";

/// One container's directory on the data disk, and its name.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(super) name: ContainerName,
    path: PathBuf,
}

impl Home {
    pub(super) fn new(folder: &Path, name: &ContainerName) -> Self {
        Self {
            name: name.clone(),
            path: folder.join(name.as_str()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path.join(ROOTFS)
    }

    /// Reads what the container was created with.
    pub(crate) fn config(&self) -> Result<Config, Fault> {
        Config::load(&self.path)
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.path.join(SNAPSHOTS)
    }

    pub(super) fn snapshot(&self, snapshot: &SnapshotName) -> PathBuf {
        self.snapshots().join(snapshot.as_str())
    }

    /// LXC's configuration of this start.
    pub(super) fn recipe(&self) -> PathBuf {
        self.run("conf")
    }

    /// The number of LXC's process that watches over the container.
    pub(super) fn pid_file(&self) -> PathBuf {
        self.run("pid")
    }

    /// What LXC says.
    pub(super) fn log(&self) -> PathBuf {
        self.run("log")
    }

    /// What the container prints on its console.
    pub(super) fn console(&self) -> PathBuf {
        self.run("console")
    }

    fn run(&self, kind: &str) -> PathBuf {
        Path::new(RUN).join(format!("{}.{kind}", self.name))
    }
}

pub(super) const ROOTFS: &str = "rootfs";
pub(super) const SNAPSHOTS: &str = "snapshots";
