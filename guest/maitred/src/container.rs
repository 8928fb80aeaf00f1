//! Containers of this VM, run by LXC: one file for each verb, all state read from the disk and the kernel.
//!
//! ```text
//! /data/containers/<name>/config.json   what it was created with
//!                         rootfs/       a btrfs subvolume, owners as the container sees them
//!                         snapshots/    read-only subvolumes of the same
//! /data/containers/.<verb>-<name>-<n>   being built or taken apart; removed when an agent starts
//! /run/testudo/containers/<name>.*      of this boot: LXC's configuration, pid file and logs
//! ```

mod account;
mod calls;
mod config;
mod copy;
mod create;
mod delete;
mod export;
mod furnish;
mod home;
mod import;
mod list;
mod live;
mod manifest;
mod progress;
mod recipe;
mod rename;
mod rootfs;
mod scratch;
mod skeleton;
mod snapshot;
mod start;
mod stop;
mod subvolume;
mod user;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::OwnedMutexGuard;
use wire::{ContainerName, Fault, Kind};

pub(crate) use account::Account;
pub(crate) use config::Config;
pub(crate) use home::Home;
pub(crate) use live::Live;
pub(crate) use rootfs::Rootfs;
pub(crate) use scratch::sweep;

use crate::disk;

/// All containers below one directory of the data disk.
#[derive(Debug)]
pub(crate) struct Containers {
    /// `/data/containers`.
    folder: PathBuf,
    /// The subvolume that default containers start as.
    base: PathBuf,
    /// One verb at a time for each container; different containers do not wait for each other.
    locks: Mutex<HashMap<ContainerName, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while a new container gets its number.
    numbers: tokio::sync::Mutex<()>,
    /// Those that are being stopped: only told to whoever asks.
    stopping: Mutex<HashSet<ContainerName>>,
}

/// Held while a verb works on a container.
type Turn = OwnedMutexGuard<()>;

impl Containers {
    pub(crate) fn on_disk() -> Self {
        Self {
            folder: Path::new(disk::MOUNT).join("containers"),
            base: Path::new(disk::MOUNT).join("base/debian-trixie"),
            locks: Mutex::default(),
            numbers: tokio::sync::Mutex::default(),
            stopping: Mutex::default(),
        }
    }

    /// Returns where a container of this name lives, whether it exists or not.
    pub(crate) fn home(&self, name: &ContainerName) -> Home {
        Home::new(&self.folder, name)
    }

    /// Waits until no other verb works on the container.
    async fn turn(&self, name: &ContainerName) -> Turn {
        let lock = {
            let mut locks = self
                .locks
                .lock()
                .expect("no code panics while it holds this lock");
            // Locks of containers that nobody waits for are dropped with the next new one.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(name.clone()).or_default())
        };
        lock.lock_owned().await
    }

    /// Takes the turn of an existing container.
    async fn existing(&self, name: &ContainerName) -> Result<(Turn, Home), Fault> {
        let turn = self.turn(name).await;
        let home = self.home(name);
        if home.exists() {
            Ok((turn, home))
        } else {
            Err(missing(name))
        }
    }

    /// Takes the turns of an existing container and of a name that must be free, in an order that two such
    /// requests cannot block each other in.
    async fn pair(
        &self,
        name: &ContainerName,
        new: &ContainerName,
    ) -> Result<((Turn, Turn), Home, Home), Fault> {
        if name == new {
            return Err(taken(new));
        }
        let (first, second) = if name < new { (name, new) } else { (new, name) };
        let turns = (self.turn(first).await, self.turn(second).await);
        let (from, to) = (self.home(name), self.home(new));
        if !from.exists() {
            return Err(missing(name));
        }
        if to.exists() {
            return Err(taken(new));
        }
        Ok((turns, from, to))
    }
}

/// The fault of a name that nothing has.
pub(crate) fn missing(name: &ContainerName) -> Fault {
    let message = format!("there is no container {name}");
    Fault::new(Kind::NotFound, "E-CONTAINER-NOTFOUND", message)
        .hint(format!("testudo create {name}"))
}

fn taken(name: &ContainerName) -> Fault {
    Fault::new(
        Kind::Exists,
        "E-CONTAINER-EXISTS",
        format!("container {name} exists already"),
    )
}

fn running(name: &ContainerName) -> Fault {
    Fault::new(
        Kind::Busy,
        "E-CONTAINER-RUNNING",
        format!("container {name} is running"),
    )
    .hint(format!("testudo stop {name}"))
}
