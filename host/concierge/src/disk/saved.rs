//! A machine that was saved, in its VM's folder on the host: the engine's file, and what must be as it was when it goes on.
//!
//! ```text
//! saved/machine    guest memory and processors, written by the engine
//! saved/vm.toml    [`Saved`]
//! ```
//! It fits the disk only as that is now, so it is used once: whoever takes it takes its name away before the guest runs,
//! and a start that was killed leaves nothing that a later one could take.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wire::{Fault, Mib};

use super::{Folder, Settings, remove_if_there};
use crate::image::Image;

/// The folder with its good name; the other two are nobody's but the request's that works on them.
const SAVED: &str = "saved";
const UNFINISHED: &str = ".saving";
const TAKEN: &str = ".taken";

const MACHINE: &str = "machine";
const TRAITS: &str = "vm.toml";

/// What must be as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    /// Virtual processors.
    pub(crate) cpus: u16,
    /// Memory in MiB.
    pub(crate) memory: Mib,
    /// The image's build: the guest has parts of its root in memory.
    pub(crate) build: String,
    /// With which its agent announces itself.
    pub(crate) token: String,
}

impl Saved {
    /// Returns what a new machine will be.
    pub(crate) fn new(settings: &Settings, image: &Image, token: String) -> Self {
        Self {
            cpus: settings.cpus,
            memory: settings.memory,
            build: image.build().to_owned(),
            token,
        }
    }
}

/// A saved machine that is being written; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Unfinished {
    folder: Folder,
    path: PathBuf,
}

/// A saved machine that is being used; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Taken {
    folder: Folder,
    path: PathBuf,
    /// What it was.
    pub(crate) saved: Saved,
}

impl Folder {
    /// Returns whether a saved machine is there.
    pub(crate) fn has_saved(&self) -> bool {
        self.path().join(SAVED).is_dir()
    }

    /// Begins to save a machine.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn begin_saving(&self) -> Result<Unfinished, Fault> {
        let path = self.path().join(UNFINISHED);
        let made =
            remove_if_there(&path).and_then(|()| DirBuilder::new().mode(0o700).create(&path));
        made.map_err(|error| self.fault("save the machine on", &error))?;
        Ok(Unfinished {
            folder: self.clone(),
            path,
        })
    }

    /// Takes the saved machine, with the engine's file, if there is one: nobody else finds it any more.
    ///
    /// # Errors
    /// When it is damaged, or the file system refuses; it stays then.
    pub(crate) fn take_saved(&self) -> Result<Option<(Taken, File)>, Fault> {
        let fault = |error: &io::Error| self.fault("take the saved machine from", error);
        let (from, path) = (self.path().join(SAVED), self.path().join(TAKEN));
        let text = match std::fs::read_to_string(from.join(TRAITS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| fault(&error))?,
        };
        let saved = toml::from_str(&text)
            .map_err(|error| fault(&io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let machine = File::open(from.join(MACHINE)).map_err(|error| fault(&error))?;
        remove_if_there(&path)
            .and_then(|()| std::fs::rename(&from, &path))
            .map_err(|error| fault(&error))?;
        let taken = Taken {
            folder: self.clone(),
            path,
            saved,
        };
        Ok(Some((taken, machine)))
    }

    /// Removes the saved machine, if there is one.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn discard_saved(&self) -> Result<(), Fault> {
        remove_if_there(&self.path().join(SAVED))
            .map_err(|error| self.fault("remove the saved machine from", &error))
    }
}

impl Unfinished {
    /// Creates the engine's empty file.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn machine(&self) -> Result<File, Fault> {
        let mut options = OpenOptions::new();
        options.create_new(true).read(true).write(true).mode(0o600);
        let made = options.open(self.path.join(MACHINE));
        made.map_err(|error| self.folder.fault("save the machine on", &error))
    }

    /// Gives it its name, once it is on the host's disk together with what the guest had written to its own.
    ///
    /// # Errors
    /// When the file system refuses; nothing is left then.
    pub(crate) fn finish(self, machine: &File, saved: &Saved) -> Result<(), Fault> {
        let disk = self.folder.disk()?;
        let text = toml::to_string(saved).expect("plain values");
        let written = machine
            .sync_all()
            .and_then(|()| disk.sync_all())
            .and_then(|()| std::fs::write(self.path.join(TRAITS), text))
            .and_then(|()| File::open(self.path.join(TRAITS))?.sync_all())
            .and_then(|()| std::fs::rename(&self.path, self.folder.path().join(SAVED)));
        written.map_err(|error| self.folder.fault("save the machine on", &error))
    }
}

impl Taken {
    /// Puts it back: the guest has not run.
    pub(crate) fn put_back(self) {
        let to = self.folder.path().join(SAVED);
        if let Err(error) = std::fs::rename(&self.path, &to) {
            tracing::warn!(path = %to.display(), %error, "cannot keep the saved machine");
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone if it was finished.
        let _gone = remove_if_there(&self.path);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Gone if it was put back; a rest is removed by the next.
        let _gone = remove_if_there(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let vms = tempfile::tempdir().unwrap();
        std::fs::create_dir(vms.path().join("one")).unwrap();
        std::fs::write(vms.path().join("one/data.btrfs"), b"").unwrap();
        let folder = Folder::new(vms.path().to_owned(), "one".parse().unwrap());
        (vms, folder)
    }

    fn save(folder: &Folder) -> Saved {
        let saved = Saved {
            cpus: 2,
            memory: Mib(512),
            build: "b".to_owned(),
            token: "t".to_owned(),
        };
        let unfinished = folder.begin_saving().unwrap();
        let machine = unfinished.machine().unwrap();
        assert!(!folder.has_saved(), "half of it has a name");
        unfinished.finish(&machine, &saved).unwrap();
        saved
    }

    #[test]
    fn what_was_saved_is_taken_once_unless_it_is_put_back() {
        let (_vms, folder) = folder();
        assert!(folder.take_saved().unwrap().is_none());
        let saved = save(&folder);
        let (taken, _machine) = folder.take_saved().unwrap().unwrap();
        assert_eq!(taken.saved, saved);
        assert!(!folder.has_saved() && folder.take_saved().unwrap().is_none());
        taken.put_back();
        assert!(folder.has_saved());
        drop(folder.take_saved().unwrap().unwrap());
        assert!(folder.take_saved().unwrap().is_none());
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let (vms, folder) = folder();
        drop(folder.begin_saving().unwrap());
        // A daemon that was killed leaves both, and neither is in the way.
        for left in [UNFINISHED, TAKEN] {
            std::fs::create_dir(vms.path().join("one").join(left)).unwrap();
        }
        save(&folder);
        drop(folder.take_saved().unwrap().unwrap());
        folder.discard_saved().unwrap();
        let left = std::fs::read_dir(vms.path().join("one")).unwrap();
        assert_eq!(left.count(), 1, "only the disk");
    }

    #[test]
    fn a_damaged_one_is_an_error_and_stays() {
        let (vms, folder) = folder();
        save(&folder);
        std::fs::write(vms.path().join("one/saved/vm.toml"), "cpus = x").unwrap();
        folder.take_saved().unwrap_err();
        assert!(folder.has_saved());
    }
}
