//! The image as a chain of steps: what each one's key is made of, in which order they run, and how
//! the results become the installed folder in one rename.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::apt::Apt;
use super::key::{Key, sha256_of};
use super::list::List;
use super::lock::{Lock, Wanted, bytes_of};
use super::manifest::{Inputs, Manifest};
use super::places::Places;
use super::root::{self, Packing, Source};
use super::sources::Sources;
use super::store::{Recipe, Store, Work};
use super::tools::{self, Tools};
use super::tree::{Tree, files_below};
use super::{container, extras, kernel};

/// The image's files, as concierge knows them, and the step each comes from.
const OUTPUTS: [(&str, &str); 4] = [
    ("vmlinux", "kernel"),
    ("root.erofs", "root"),
    ("data.btrfs", "data"),
    ("incus.erofs", "extras"),
];

/// What a guest asks for when it wants one of them.
const EXTRAS: [(&str, &str); 1] = [("incus", "incus.erofs")];

/// What one image is made of.
pub(super) struct Plan<'a> {
    pub(super) places: &'a Places,
    pub(super) sources: &'a Sources,
    /// The static maitred.
    pub(super) maitred: &'a Path,
    /// Static programs for /opt/testudo/bin.
    pub(super) tools: &'a [PathBuf],
}

/// The recipe's files under image/, by path.
type Files = BTreeMap<String, Vec<u8>>;

/// The key of every step by its name.
type Keys = BTreeMap<&'static str, Key>;

/// Where the results of the steps that make outputs are, by the step's name.
type Results = BTreeMap<&'static str, PathBuf>;

/// The plan with its inputs read: what each step is made of.
struct Inventory {
    files: Files,
    toolchain: String,
    lock: Lock,
    keys: Keys,
}

impl Inventory {
    /// Returns the recipe of the step `name`, which does `what` in about `seconds`.
    fn recipe<'a>(&self, name: &'static str, what: &'a str, seconds: u64) -> Recipe<'a> {
        Recipe {
            name,
            what,
            about: Duration::from_secs(seconds),
            key: self.keys[name].clone(),
        }
    }
}

impl Plan<'_> {
    /// Brings the installed image up to date.
    ///
    /// # Errors
    /// When a step fails.
    pub(super) fn carry_out(&self, refresh: bool) -> Result<()> {
        let store = Store::open(&self.places.cache)?;
        let folder = store.shared("apt")?;
        let apt = Apt::prepare(&folder, self.sources)?;
        let mut inventory = self.take_inventory(&apt, &folder, refresh)?;
        let here = |(name, key): (&&str, &Key)| store.place(name, key).exists();
        if Lock::is_stale(&folder) && !inventory.keys.iter().all(here) {
            inventory = self.take_inventory(&apt, &folder, true)?;
        }
        let parts: Vec<_> = inventory
            .keys
            .iter()
            .map(|(name, key)| (*name, key.as_bytes()))
            .collect();
        let whole = Key::of(&parts).to_string();
        if Manifest::read(&self.places.output).is_some_and(|manifest| manifest.build == whole) {
            return Ok(());
        }
        let results = self.make(&store, &apt, &inventory)?;
        let inputs = Inputs {
            toolchain: inventory.toolchain.lines().map(str::to_owned).collect(),
            files: self.hashes(&inventory.files)?,
            packages: inventory.lock.sets().clone(),
        };
        install(&results, &self.places.output, |manifest| {
            manifest.build = whole;
            manifest.inputs = inputs;
        })?;
        apt.forget_all_but(&inventory.lock.sets().values().flatten().collect::<Vec<_>>())
    }

    fn take_inventory(&self, apt: &Apt, folder: &Path, refresh: bool) -> Result<Inventory> {
        let files = files_below(&self.places.checkout.join("image"))?;
        let files = files
            .into_iter()
            .map(|(path, content, _)| (path, content))
            .collect();
        let toolchain = kernel::toolchain()?;
        let lock = Lock::get(apt, folder, &wanted(&files)?, refresh)?;
        let keys = self.keys(&files, &lock, &toolchain)?;
        Ok(Inventory {
            files,
            toolchain,
            lock,
            keys,
        })
    }

    /// Runs the steps that are not in the store and returns where each one's result is.
    fn make(&self, store: &Store, apt: &Apt, inventory: &Inventory) -> Result<Results> {
        // The short steps go first: what is wrong with packages or lists shows before the long wait.
        let packages = inventory.lock.set("tools");
        let tools = inventory.recipe("tools", "unpacking file-system tools", 5);
        let tools = store.get(&tools, |work| Tools::unpack(apt, packages, work))?;
        let tools = Tools::at(&tools)?;
        let mut results = self.make_trees(store, apt, inventory, &tools)?;
        let base = inventory.recipe("base", "installing the default container", 90);
        let base = store.get(&base, |work| {
            container::debootstrap(
                apt,
                self.sources,
                &list_of(&inventory.files, BASE_LIST)?,
                work,
            )
        })?;
        let data = inventory.recipe("data", "making the data disk", 20);
        let data = store.get(&data, |work| {
            container::disk(&base.join("base.tar"), &tools, work)
        })?;
        let kernel = inventory.recipe("kernel", "compiling the kernel", 360);
        let kernel = store.get(&kernel, |work| {
            let recipe = self.places.checkout.join("image/termina");
            kernel::build(apt, inventory.lock.set("kernel"), &recipe, work)
        })?;
        results.extend([("data", data), ("kernel", kernel)]);
        Ok(results)
    }

    /// Runs the steps that draw a file system from packages: Termina's root and the extras over it.
    fn make_trees(
        &self,
        store: &Store,
        apt: &Apt,
        inventory: &Inventory,
        tools: &Tools,
    ) -> Result<Results> {
        let draw = |set: &str, list: &str, below: &Tree, work: &Work<'_>| {
            let list = list_of(&inventory.files, list)?;
            let packages = inventory.lock.set(set);
            root::draw(
                &Source {
                    apt,
                    packages,
                    list: &list,
                    below,
                },
                work,
            )
        };
        let tree = inventory.recipe("tree", "drawing Termina's root from packages", 15);
        let tree = store.get(&tree, |work| {
            let mut tree = draw("tree", ROOT_LIST, &Tree::default(), work)?;
            root::furnish(
                &mut tree,
                &self.places.checkout.join("image/termina/root"),
                work,
            )?;
            root::write_tar(&tree, &work.folder.join("tree.tar"))
        })?;
        let bare = tree.join("tree.tar");
        let root = inventory.recipe("root", "packing Termina's root", 3);
        let root = store.get(&root, |work| {
            let mut tree = root::read_tar(&bare)?;
            root::add_programs(&mut tree, self.maitred, self.tools)?;
            let packing = Packing {
                name: "root.erofs",
                compression: root::COMPRESSION,
            };
            root::pack(&tree, &packing, tools, work)
        })?;
        let extras = inventory.recipe("extras", "packing the extras image", 20);
        let extras = store.get(&extras, |work| {
            let tree = draw("extras", INCUS_LIST, &root::read_tar(&bare)?, work)?;
            extras::build(tree, tools, work)
        })?;
        Ok(Results::from([("root", root), ("extras", extras)]))
    }

    /// Returns every step's key. A step's own source text is part of it, so that no one has to think
    /// of a version number when a step changes.
    fn keys(&self, files: &Files, lock: &Lock, toolchain: &str) -> Result<Keys> {
        let set = |name: &str| bytes_of(lock.set(name));
        let below = |prefix: &str| bytes_below(files, prefix);
        let tree_code = concat!(
            include_str!("tree.rs"),
            include_str!("thin.rs"),
            include_str!("root.rs")
        );
        let base_code = concat!(include_str!("container.rs"), include_str!("namespace.rs"));
        let mut keys = Keys::new();
        keys.insert(
            "kernel",
            Key::of(&[
                ("packages", &set("kernel")),
                ("config", &below("termina/kernel.config")),
                ("patches", &below("termina/patches/")),
                ("toolchain", toolchain.as_bytes()),
                ("code", include_bytes!("kernel.rs")),
            ]),
        );
        keys.insert(
            "tools",
            Key::of(&[
                ("packages", &set("tools")),
                ("code", include_bytes!("tools.rs")),
            ]),
        );
        keys.insert(
            "tree",
            Key::of(&[
                ("packages", &set("tree")),
                ("list", &below(ROOT_LIST)),
                ("files", &below("termina/root/")),
                ("code", tree_code.as_bytes()),
            ]),
        );
        keys.insert(
            "root",
            Key::of(&[
                ("tree", keys["tree"].as_bytes()),
                ("tools", keys["tools"].as_bytes()),
                ("programs", self.programs()?.join("\n").as_bytes()),
            ]),
        );
        keys.insert(
            "extras",
            Key::of(&[
                ("tree", keys["tree"].as_bytes()),
                ("tools", keys["tools"].as_bytes()),
                ("packages", &set("extras")),
                ("list", &below(INCUS_LIST)),
                ("code", include_bytes!("extras.rs")),
            ]),
        );
        keys.insert(
            "base",
            Key::of(&[
                ("packages", &set("base")),
                ("list", &below(BASE_LIST)),
                ("overlay", &overlay_bytes(self.sources)?),
                ("code", base_code.as_bytes()),
            ]),
        );
        keys.insert(
            "data",
            Key::of(&[
                ("base", keys["base"].as_bytes()),
                ("tools", keys["tools"].as_bytes()),
            ]),
        );
        Ok(keys)
    }

    /// Returns a line with path and hash for every program that goes into the root.
    fn programs(&self) -> Result<Vec<String>> {
        let hash = |path: &Path| -> Result<String> {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Ok(format!("{name} {}", sha256_of(path)?))
        };
        [self.maitred]
            .into_iter()
            .chain(self.tools.iter().map(PathBuf::as_path))
            .map(hash)
            .collect()
    }

    /// Returns the hashes of the recipe's files and of the programs.
    fn hashes(&self, files: &Files) -> Result<BTreeMap<String, String>> {
        let mut hashes = BTreeMap::new();
        for path in files.keys() {
            let path = Path::new("image").join(path);
            hashes.insert(
                path.display().to_string(),
                sha256_of(&self.places.checkout.join(&path))?,
            );
        }
        for line in self.programs()? {
            hashes.extend(
                line.split_once(' ')
                    .map(|(name, hash)| (name.to_owned(), hash.to_owned())),
            );
        }
        Ok(hashes)
    }
}

const ROOT_LIST: &str = "termina/root.list";
const INCUS_LIST: &str = "termina/incus.list";
const BASE_LIST: &str = "penguin/base.list";

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

/// Makes the image's folder out of the steps' results and puts it in place of an older one at once.
/// The files are links to the cache's where both are on one file system.
fn install(results: &Results, output: &Path, describe: impl FnOnce(&mut Manifest)) -> Result<()> {
    let parent = output.parent().context("the output folder has no parent")?;
    let fresh = parent.join(format!(".image-{}", std::process::id()));
    fs::create_dir_all(&fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
    for (name, step) in OUTPUTS {
        let (from, to) = (results[step].join(name), fresh.join(name));
        if fs::hard_link(&from, &to).is_err() {
            copy_sparse(&from, &to)?;
        }
        // Whoever uses an image copies it; writing to it would write to the cache.
        fs::set_permissions(&to, Permissions::from_mode(0o444))
            .context("cannot protect the image")?;
    }
    let names = OUTPUTS.map(|(name, _)| name);
    let mut manifest = Manifest::of(&fresh, &names, &EXTRAS)?;
    describe(&mut manifest);
    manifest.write(&fresh)?;
    let context = || format!("cannot install into {}", output.display());
    if output.exists() {
        renameat_with(CWD, &fresh, CWD, output, RenameFlags::EXCHANGE).with_context(context)?;
        fs::remove_dir_all(&fresh).context("cannot remove the older image")
    } else {
        fs::rename(&fresh, output).with_context(context)
    }
}

/// Copies a file and leaves its holes holes, sharing blocks where the file system can.
fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let mut copy = std::process::Command::new("cp");
    copy.args(["--sparse=always", "--reflink=auto", "--"])
        .arg(from)
        .arg(to);
    crate::command::output(&mut copy).map(drop)
}
