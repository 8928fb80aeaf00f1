//! What an image would be made of right now: the recipe's files, the resolved packages, the compiler,
//! the programs of this checkout, and the key of every step over its part of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::apt::Apt;
use super::key::{Key, sha256_of};
use super::list::List;
use super::lock::{Lock, Wanted, bytes_of};
use super::manifest::Inputs;
use super::plan::Plan;
use super::sources::Sources;
use super::store::Recipe;
use super::tree::files_below;
use super::{container, kernel, tools};

/// The lists of packages, below image/.
pub(super) const ROOT_LIST: &str = "termina/root.list";
pub(super) const INCUS_LIST: &str = "termina/incus.list";
pub(super) const BASE_LIST: &str = "penguin/base.list";

/// The recipe's files under image/, by path.
type Files = BTreeMap<String, Vec<u8>>;

/// The key of every step by its name.
pub(super) type Keys = BTreeMap<&'static str, Key>;

/// The inputs of an image.
pub(super) struct Inventory {
    files: Files,
    toolchain: String,
    programs: Vec<String>,
    /// The packages.
    pub(super) lock: Lock,
    /// Every step's key.
    pub(super) keys: Keys,
}

impl Inventory {
    /// Reads the inputs of `plan`; packages are resolved anew when `refresh` says so.
    ///
    /// # Errors
    /// When a file cannot be read or the packages cannot be resolved.
    pub(super) fn take(plan: &Plan<'_>, apt: &Apt, folder: &Path, refresh: bool) -> Result<Self> {
        let files = files_below(&plan.places.checkout.join("image"))?;
        let files = files
            .into_iter()
            .map(|(path, content, _)| (path, content))
            .collect();
        let mut inventory = Self {
            lock: Lock::get(apt, folder, &wanted(&files)?, refresh)?,
            files,
            toolchain: kernel::toolchain()?,
            programs: programs([plan.maitred, plan.sommelier])?,
            keys: Keys::new(),
        };
        inventory.keys = inventory.keys_of_steps(plan.sources)?;
        Ok(inventory)
    }

    /// Returns the recipe of the step `name`, which does `what` in about `seconds`.
    pub(super) fn recipe<'a>(&self, name: &'static str, what: &'a str, seconds: u64) -> Recipe<'a> {
        let about = Duration::from_secs(seconds);
        Recipe {
            name,
            what,
            about,
            key: self.keys[name].clone(),
        }
    }

    /// Returns the key over all steps.
    pub(super) fn whole(&self) -> Key {
        let parts: Vec<_> = self
            .keys
            .iter()
            .map(|(name, key)| (*name, key.as_bytes()))
            .collect();
        Key::of(&parts)
    }

    /// Parses one of the lists.
    ///
    /// # Errors
    /// When it is not there or not a list.
    pub(super) fn list(&self, path: &str) -> Result<List> {
        list_of(&self.files, path)
    }

    /// Returns the inputs as the manifest has them.
    pub(super) fn inputs(&self) -> Inputs {
        let hash =
            |(path, content): (&String, &Vec<u8>)| (format!("image/{path}"), Key::sha256(content));
        let mut files: BTreeMap<String, String> = self.files.iter().map(hash).collect();
        for line in &self.programs {
            files.extend(
                line.split_once(' ')
                    .map(|(name, hash)| (name.to_owned(), hash.to_owned())),
            );
        }
        Inputs {
            toolchain: self.toolchain.lines().map(str::to_owned).collect(),
            files,
            packages: self.lock.sets().clone(),
        }
    }

    /// Returns every step's key. A step's own source text is part of it, so that no one has to think
    /// of a version number when a step changes.
    fn keys_of_steps(&self, sources: &Sources) -> Result<Keys> {
        let set = |name: &str| bytes_of(self.lock.set(name));
        let below = |prefix: &str| bytes_below(&self.files, prefix);
        let tree_code = concat!(
            include_str!("tree.rs"),
            include_str!("thin.rs"),
            include_str!("root.rs")
        );
        let disk_code = concat!(include_str!("disk.rs"), include_str!("namespace.rs"));
        let kernel = Key::of(&[
            ("packages", &set("kernel")),
            ("config", &below("termina/kernel.config")),
            ("patches", &below("termina/patches/")),
            ("toolchain", self.toolchain.as_bytes()),
            ("code", include_bytes!("kernel.rs")),
        ]);
        let tools = Key::of(&[
            ("packages", &set("tools")),
            ("code", include_bytes!("tools.rs")),
        ]);
        let tree = Key::of(&[
            ("packages", &set("tree")),
            ("list", &below(ROOT_LIST)),
            ("files", &below("termina/root/")),
            ("code", tree_code.as_bytes()),
        ]);
        let root = Key::of(&[
            ("tree", tree.as_bytes()),
            ("tools", tools.as_bytes()),
            ("programs", self.programs.join("\n").as_bytes()),
        ]);
        let extras = Key::of(&[
            ("tree", tree.as_bytes()),
            ("tools", tools.as_bytes()),
            ("packages", &set("extras")),
            ("list", &below(INCUS_LIST)),
            ("code", include_bytes!("extras.rs")),
        ]);
        let base = Key::of(&[
            ("packages", &set("base")),
            ("list", &below(BASE_LIST)),
            ("overlay", &overlay_bytes(sources)?),
            ("code", include_bytes!("container.rs")),
        ]);
        let data = Key::of(&[
            ("base", base.as_bytes()),
            ("tools", tools.as_bytes()),
            ("code", disk_code.as_bytes()),
        ]);
        Ok(Keys::from([
            ("kernel", kernel),
            ("tools", tools),
            ("tree", tree),
            ("root", root),
            ("extras", extras),
            ("base", base),
            ("data", data),
        ]))
    }
}

/// Returns what to resolve for each step that uses packages.
fn wanted(files: &Files) -> Result<Vec<(&'static str, Wanted)>> {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut base = list_of(files, BASE_LIST)?.packages;
    base.push("?essential".to_owned());
    Ok(vec![
        ("kernel", Wanted::Alone(own(&[kernel::SOURCE]))),
        ("tools", Wanted::Closed(own(&tools::PACKAGES))),
        ("tree", Wanted::Closed(list_of(files, ROOT_LIST)?.packages)),
        (
            "extras",
            Wanted::Closed(list_of(files, INCUS_LIST)?.packages),
        ),
        ("base", Wanted::Closed(base)),
    ])
}

fn list_of(files: &Files, path: &str) -> Result<List> {
    let content = files
        .get(path)
        .with_context(|| format!("no image/{path} in the checkout"))?;
    List::parse(&String::from_utf8_lossy(content))
        .with_context(|| format!("cannot read image/{path}"))
}

/// Returns a line with name and hash for every program that goes into the root.
fn programs(programs: [&Path; 2]) -> Result<Vec<String>> {
    let hash = |path: &Path| -> Result<String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(format!("{name} {}", sha256_of(path)?))
    };
    programs.into_iter().map(hash).collect()
}

/// Returns names and contents of the files whose path starts with `prefix`.
fn bytes_below(files: &Files, prefix: &str) -> Vec<u8> {
    let chosen = files.iter().filter(|(path, _)| path.starts_with(prefix));
    let parts: Vec<(&str, &[u8])> = chosen
        .map(|(path, content)| (path.as_str(), content.as_slice()))
        .collect();
    Key::of(&parts).as_bytes().to_vec()
}

fn overlay_bytes(sources: &Sources) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    container::overlay(sources).write_tar(&mut bytes)?;
    Ok(bytes)
}
