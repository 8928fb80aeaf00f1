//! The image as a chain of steps: in which order they run, what they hand on, and how the results
//! become the installed folder in one rename.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::apt::Apt;
use super::inventory::{BASE_LIST, INCUS_LIST, Inventory, ROOT_LIST};
use super::lock::Lock;
use super::manifest::Manifest;
use super::places::Places;
use super::root::{self, Packing, Source};
use super::sources::Sources;
use super::store::{Store, Work};
use super::tools::Tools;
use super::tree::Tree;
use super::{container, disk, extras, kernel};

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
    /// The static sommelier.
    pub(super) sommelier: &'a Path,
}

/// Where the results of the steps that make outputs are, by the step's name.
type Results = BTreeMap<&'static str, PathBuf>;

impl Plan<'_> {
    /// Brings the installed image up to date.
    ///
    /// # Errors
    /// When a step fails.
    pub(super) fn carry_out(&self, refresh: bool) -> Result<()> {
        let store = Store::open(&self.places.cache)?;
        let folder = store.shared("apt")?;
        let apt = Apt::prepare(&folder, self.sources)?;
        let mut inventory = Inventory::take(self, &apt, &folder, refresh)?;
        if Lock::is_stale(&folder) && needs_mirrors(&store, &apt, &inventory) {
            inventory = Inventory::take(self, &apt, &folder, true)?;
        }
        let build = inventory.whole().to_string();
        if Manifest::read(&self.places.output).is_some_and(|manifest| manifest.build == build) {
            return Ok(());
        }
        let results = self.make(&store, &apt, &inventory)?;
        install(&results, &self.places.output, |manifest| {
            manifest.build = build;
            manifest.inputs = inventory.inputs();
        })?;
        apt.forget_all_but(&inventory.lock.sets().values().flatten().collect::<Vec<_>>())
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
            container::debootstrap(apt, self.sources, &inventory.list(BASE_LIST)?, work)
        })?;
        let data = inventory.recipe("data", "making the data disk", 20);
        let data = store.get(&data, |work| {
            disk::make(&base.join("base.tar"), &tools, work)
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
            let list = inventory.list(list)?;
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
            root::add_programs(&mut tree, self.maitred, self.sommelier)?;
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
}

/// Returns whether a step must run for which something has to be downloaded.
fn needs_mirrors(store: &Store, apt: &Apt, inventory: &Inventory) -> bool {
    inventory.lock.sets().iter().any(|(name, packages)| {
        // mmdebstrap downloads the base's packages by itself, whether they are here or not.
        let here = name != "base" && apt.has(packages);
        let done = |key| store.place(name, key).exists();
        !here && !inventory.keys.get(name.as_str()).is_some_and(done)
    })
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
