//! The cache of build steps, outside every checkout: one folder per step and key, made under a
//! temporary name and renamed when whole. A key that is there is built again only when its files are
//! not what they were: disks rot, and a power cut may have come between a file's name and its bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

use super::key::{Key, sha256_of};
use crate::progress::{Step, line};

/// Results of one step that are kept: the one in use and the one before, for going back and forth.
const KEPT: usize = 2;

/// The sums of a result's files, beside them.
const SUMS: &str = "SHA256SUMS";

/// The folder of results. One process at a time owns it.
pub(super) struct Store {
    root: PathBuf,
    _lock: File,
}

/// One step's name in the store and for people.
pub(super) struct Recipe<'a> {
    /// Folder name: `kernel`.
    pub(super) name: &'a str,
    /// What is going on: "building the kernel".
    pub(super) what: &'a str,
    /// About how long that takes on two cores.
    pub(super) about: Duration,
    /// The hash of everything that goes in.
    pub(super) key: Key,
}

/// A step at work: where it may write and whom it tells.
pub(super) struct Work<'a> {
    /// The folder that becomes the result. It survives an interrupted run of the same key, and what
    /// is left in it from there may be used again.
    pub(super) folder: &'a Path,
    /// The log of every program that the step runs.
    pub(super) log: &'a Path,
    /// The announcement on the terminal.
    pub(super) step: &'a Step,
}

impl Store {
    /// Opens the store at `root`, waiting for another `cargo xtask image` to end.
    ///
    /// # Errors
    /// When the folder cannot be made or locked.
    pub(super) fn open(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        let lock = File::create(root.join("lock")).context("cannot open the cache's lock")?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            line("waiting for another image build to end");
            flock(&lock, FlockOperation::LockExclusive).context("cannot lock the cache")?;
        }
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
        })
    }

    /// Returns the folder for things that are shared between keys, such as apt's state.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn shared(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Returns where the result of `name` and `key` is or will be.
    pub(super) fn place(&self, name: &str, key: &Key) -> PathBuf {
        self.root.join(format!("{name}-{}", key.short()))
    }

    /// Returns the result of `recipe`, calling `make` only if it is not there, or not as it was made.
    ///
    /// # Errors
    /// What `make` fails with; its folder stays for the next try.
    pub(super) fn get(
        &self,
        recipe: &Recipe<'_>,
        make: impl FnOnce(&Work<'_>) -> Result<()>,
    ) -> Result<PathBuf> {
        let place = self.place(recipe.name, &recipe.key);
        if place.exists() {
            if is_whole(&place)? {
                return Ok(place);
            }
            line(&format!("{} is damaged and is made again", place.display()));
            fs::remove_dir_all(&place)
                .with_context(|| format!("cannot remove {}", place.display()))?;
        }
        let folder = self
            .root
            .join(format!("unfinished-{}-{}", recipe.name, recipe.key.short()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let log = self.root.join(format!("{}.log", recipe.name));
        File::create(&log).with_context(|| format!("cannot make log {}", log.display()))?;
        let step = Step::start(recipe.what, recipe.about);
        make(&Work {
            folder: &folder,
            log: &log,
            step: &step,
        })
        .with_context(|| format!("{} did not succeed", recipe.what))?;
        fs::write(folder.join(SUMS), sums(&folder)?).context("cannot write a result's sums")?;
        // What is unpacked into a folder may give it an old time, and its time tells what to forget.
        File::open(&folder)
            .and_then(|folder| folder.set_modified(SystemTime::now()))
            .with_context(|| format!("cannot date {}", folder.display()))?;
        fs::rename(&folder, &place).with_context(|| {
            format!("cannot rename {} to {}", folder.display(), place.display())
        })?;
        step.done();
        self.forget_old(recipe.name)?;
        Ok(place)
    }

    /// Removes all but the newest results of `name`, and what older unfinished tries left.
    fn forget_old(&self, name: &str) -> Result<()> {
        let mut results = self.named(&format!("{name}-"))?;
        results.sort_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok());
        let surplus = results.len().saturating_sub(KEPT);
        let unfinished = self.named(&format!("unfinished-{name}-"))?;
        for path in results.iter().take(surplus).chain(&unfinished) {
            fs::remove_dir_all(path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    fn named(&self, prefix: &str) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).context("cannot list the cache")? {
            let entry = entry.context("cannot list the cache")?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_result = name
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.len() == 16 && !rest.contains('-'));
            if is_result {
                found.push(entry.path());
            }
        }
        Ok(found)
    }
}

/// Returns whether the files of a result are those that were made.
fn is_whole(result: &Path) -> Result<bool> {
    let kept = fs::read_to_string(result.join(SUMS)).unwrap_or_default();
    Ok(kept == sums(result)?)
}

/// Returns the sums of all files below `result`, as sha256sum(1) has them.
fn sums(result: &Path) -> Result<String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![result.to_owned()];
    while let Some(folder) = folders.pop() {
        let context = || format!("cannot list {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(context)? {
            let entry = entry.with_context(context)?;
            let (kind, path) = (entry.file_type().with_context(context)?, entry.path());
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && entry.file_name() != SUMS {
                let sum = sha256_of(&path)?;
                found.insert(path, sum);
            }
        }
    }
    let lines = found.into_iter().map(|(path, sum)| {
        let name = path.strip_prefix(result).unwrap_or(&path);
        format!("{sum}  {}\n", name.display())
    });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn recipe(key: &[u8]) -> Recipe<'static> {
        let key = Key::of(&[("input", key)]);
        Recipe {
            name: "thing",
            what: "making the thing",
            about: Duration::ZERO,
            key,
        }
    }

    #[test]
    fn same_key_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let first = store
            .get(&recipe(b"a"), |work| {
                Ok(fs::write(work.folder.join("x"), "1")?)
            })
            .unwrap();
        let second = store.get(&recipe(b"a"), |_| bail!("made again")).unwrap();
        assert_eq!(
            (
                fs::read_to_string(second.join("x")).unwrap().as_str(),
                &first
            ),
            ("1", &second)
        );
    }

    #[test]
    fn damaged_result_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let make = |work: &Work<'_>| {
            fs::create_dir_all(work.folder.join("below"))?;
            Ok(fs::write(work.folder.join("below/x"), "right")?)
        };
        let place = store.get(&recipe(b"a"), make).unwrap();
        let damages: [fn(&Path); 3] = [
            |place| fs::write(place.join("below/x"), "wrong").unwrap(),
            |place| fs::remove_file(place.join("below/x")).unwrap(),
            // As a power cut leaves a file whose name was written before its bytes.
            |place| fs::write(place.join(SUMS), "").unwrap(),
        ];
        for damage in damages {
            damage(&place);
            store.get(&recipe(b"a"), make).unwrap();
            let text = fs::read_to_string(place.join("below/x")).unwrap();
            assert_eq!(text, "right");
            store.get(&recipe(b"a"), |_| bail!("made again")).unwrap();
        }
    }

    #[test]
    fn failed_step_leaves_no_result_and_its_work_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let failed = store.get(&recipe(b"a"), |work| {
            fs::write(work.folder.join("half"), "1")?;
            bail!("power cut")
        });
        assert!(failed.is_err() && !store.place("thing", &recipe(b"a").key).exists());
        let made = store.get(&recipe(b"a"), |work| {
            assert!(work.folder.join("half").exists(), "earlier work is gone");
            Ok(())
        });
        assert!(made.unwrap().join("half").exists());
    }

    #[test]
    fn only_the_newest_results_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for input in [b"a", b"b", b"c"] {
            // As unpacking a package leaves a folder.
            let make = |work: &Work<'_>| {
                Ok(File::open(work.folder)?.set_modified(SystemTime::UNIX_EPOCH)?)
            };
            store.get(&recipe(input), make).unwrap();
        }
        let kept =
            [b"a", b"b", b"c"].map(|input| store.place("thing", &recipe(input).key).exists());
        assert_eq!(kept, [false, true, true]);
    }
}
