//! The folders of an image build: the checkout it reads, the cache it keeps and the folder it
//! installs into, by the XDG base directory rules.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The folders.
pub(super) struct Places {
    /// The repository.
    pub(super) checkout: PathBuf,
    /// Results of steps, apt's private state, logs.
    pub(super) cache: PathBuf,
    /// The installed image.
    pub(super) output: PathBuf,
}

impl Places {
    /// Returns the folders of this user; `output` overrides where the image goes.
    ///
    /// # Errors
    /// When neither XDG's variables nor HOME say where, or the cache cannot be made.
    pub(super) fn of_user(output: Option<&Path>) -> Result<Self> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the repository is not where xtask was compiled")?
            .to_owned();
        let output = match output {
            Some(folder) => std::path::absolute(folder).context("bad output folder")?,
            None => xdg("XDG_DATA_HOME", ".local/share")?.join("testudo/image"),
        };
        let cache = xdg("XDG_CACHE_HOME", ".cache")?.join("testudo/build");
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        Ok(Self {
            checkout,
            cache,
            output,
        })
    }
}

/// Returns the folder that `variable` names, or `fallback` in the home directory; relative values do
/// not count (XDG Base Directory Specification).
fn xdg(variable: &str, fallback: &str) -> Result<PathBuf> {
    let set = env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    match set {
        Some(path) => Ok(path),
        None => Ok(PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(fallback)),
    }
}
