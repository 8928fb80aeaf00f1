//! The suite's own mkfs programs, run on this machine whatever its release: unpacked from their
//! packages and started through their own dynamic linker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::apt::{Apt, Package};
use super::store::Work;
use crate::command;

/// Packages that the tools come from.
pub(super) const PACKAGES: [&str; 2] = ["btrfs-progs", "erofs-utils"];

/// Unpacked tools.
pub(super) struct Tools {
    root: PathBuf,
}

impl Tools {
    /// Unpacks `packages` into the work's folder.
    ///
    /// # Errors
    /// When one cannot be had or unpacked.
    pub(super) fn unpack(apt: &Apt, packages: &[Package], work: &Work<'_>) -> Result<()> {
        for deb in apt.fetch(packages, work.log, work.step)? {
            let mut extract = Command::new("dpkg-deb");
            extract.arg("--extract").arg(deb).arg(work.folder);
            command::run(&mut extract, work.log, work.step)?;
        }
        Ok(())
    }

    /// Returns the tools that [`Tools::unpack`] left in `root`.
    ///
    /// # Errors
    /// When their dynamic linker is not there.
    pub(super) fn at(root: &Path) -> Result<Self> {
        let tools = Self {
            root: root.to_owned(),
        };
        if !tools.linker().exists() {
            bail!("{} has no dynamic linker", root.display());
        }
        Ok(tools)
    }

    fn linker(&self) -> PathBuf {
        self.root.join("usr/lib64/ld-linux-x86-64.so.2")
    }

    /// Returns a command that runs the tool `program`.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.linker());
        command.args(self.arguments(program));
        command
    }

    /// Returns the words of a shell command line that runs the tool `program`.
    pub(super) fn words(&self, program: &str) -> Vec<String> {
        let mut words = vec![self.linker().display().to_string()];
        words.extend(self.arguments(program));
        words
    }

    fn arguments(&self, program: &str) -> [String; 3] {
        let folder = ["usr/bin", "usr/sbin"]
            .map(|folder| self.root.join(folder).join(program))
            .into_iter()
            .find(|path| fs::exists(path).unwrap_or(false))
            .unwrap_or_else(|| self.root.join("usr/bin").join(program));
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        [
            "--library-path".to_owned(),
            libraries.display().to_string(),
            folder.display().to_string(),
        ]
    }
}
