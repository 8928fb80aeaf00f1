//! Which packages exactly an image is made of: resolved once, kept in the cache, and resolved anew
//! when asked to, when a list changes, or when something must be downloaded and the mirrors may have
//! moved on since.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::apt::{Apt, Package};
use super::key::Key;
use crate::progress::Step;

/// After this, mirrors may no longer have the versions resolved (Debian's move four times a day).
const FRESH: Duration = Duration::from_secs(6 * 60 * 60);

/// What a set is resolved from.
pub(super) enum Wanted {
    /// These packages and everything they depend on.
    Closed(Vec<String>),
    /// These packages alone.
    Alone(Vec<String>),
}

/// The resolved packages of every set.
#[derive(Serialize, Deserialize)]
pub(super) struct Lock {
    key: String,
    sets: BTreeMap<String, Vec<Package>>,
}

impl Lock {
    /// Returns the lock in `folder`, or a new one when it is not of the same sources and `wanted`
    /// sets or `refresh` is true.
    ///
    /// # Errors
    /// When the packages cannot be resolved.
    pub(super) fn get(
        apt: &Apt,
        folder: &Path,
        wanted: &[(&str, Wanted)],
        refresh: bool,
    ) -> Result<Self> {
        let path = folder.join("lock.json");
        let key = key_of(apt, wanted);
        if !refresh && let Some(lock) = Self::read(&path).filter(|lock| lock.key == key) {
            return Ok(lock);
        }
        let step = Step::start("resolving packages", Duration::from_secs(8));
        apt.update(&folder.join("update.log"), &step)?;
        let mut sets = BTreeMap::new();
        for (name, wanted) in wanted {
            let packages = match wanted {
                Wanted::Closed(names) => apt.resolve(names),
                Wanted::Alone(names) => apt.describe(names),
            };
            let packages =
                packages.with_context(|| format!("cannot resolve the packages of {name}"))?;
            sets.insert((*name).to_owned(), packages);
        }
        let lock = Self { key, sets };
        let text = serde_json::to_vec_pretty(&lock).context("cannot write the lock as JSON")?;
        let temporary = folder.join("lock.json.new");
        fs::write(&temporary, text).context("cannot write the lock")?;
        fs::rename(&temporary, &path).context("cannot rename the lock")?;
        step.done();
        Ok(lock)
    }

    /// Returns whether the mirrors may have moved on since the lock in `folder` was made.
    pub(super) fn is_stale(folder: &Path) -> bool {
        let modified = fs::metadata(folder.join("lock.json")).and_then(|data| data.modified());
        let age = modified.map(|then| SystemTime::now().duration_since(then).unwrap_or_default());
        age.is_ok_and(|age| age > FRESH)
    }

    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Returns the packages of the set `name`.
    pub(super) fn set(&self, name: &str) -> &[Package] {
        self.sets.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns every set by name.
    pub(super) fn sets(&self) -> &BTreeMap<String, Vec<Package>> {
        &self.sets
    }
}

/// Returns the packages as bytes for a key: names, versions and hashes.
pub(super) fn bytes_of(packages: &[Package]) -> Vec<u8> {
    let lines: Vec<String> = packages
        .iter()
        .map(|package| format!("{} {} {}", package.name, package.version, package.sha256))
        .collect();
    lines.join("\n").into_bytes()
}

fn key_of(apt: &Apt, wanted: &[(&str, Wanted)]) -> String {
    let text = |wanted: &Wanted| match wanted {
        Wanted::Closed(names) => format!("closed {}", names.join(" ")),
        Wanted::Alone(names) => format!("alone {}", names.join(" ")),
    };
    let texts: Vec<(&str, String)> = wanted
        .iter()
        .map(|(name, wanted)| (*name, text(wanted)))
        .collect();
    let mut parts: Vec<(&str, &[u8])> = vec![("sources", apt.sources().as_bytes())];
    parts.extend(texts.iter().map(|(name, text)| (*name, text.as_bytes())));
    Key::of(&parts).to_string()
}
