//! Snapshots of a container: read-only subvolumes beside its root file system.

use std::os::unix::fs::MetadataExt;

use wire::proto::Snapshot;
use wire::{ContainerName, Fault, Kind, SnapshotName};

use super::config::Config;
use super::create::blocking;
use super::scratch::Scratch;
use super::{Containers, Live, running, subvolume};
use crate::fault::OrFault;

/// More would make every deletion slow, and a list that nobody reads.
const COUNT_MAX: usize = 1000;

impl Containers {
    /// Keeps what the container holds now. A running one is caught at one moment, as a power cut would.
    pub(super) async fn snapshot(
        &self,
        name: &ContainerName,
        snapshot: &SnapshotName,
    ) -> Result<(), Fault> {
        let (_turn, home) = self.existing(name).await?;
        let message = format!("cannot make snapshot {snapshot} of {name}");
        let to = home.snapshot(snapshot);
        if to.exists() {
            let text = format!("container {name} has a snapshot {snapshot} already");
            return Err(Fault::new(Kind::Exists, "E-SNAPSHOT-EXISTS", text));
        }
        let snapshots = home.snapshots();
        let count = std::fs::read_dir(&snapshots).map_or(0, Iterator::count);
        if count >= COUNT_MAX {
            return Err(Fault::new(Kind::Exhausted, "E-SNAPSHOT-LIMIT", message)
                .cause(format!("it has {count} snapshots already")));
        }
        let (folder, rootfs) = (self.folder.clone(), home.rootfs());
        blocking(move || {
            let take = || -> std::io::Result<()> {
                std::fs::create_dir_all(&snapshots)?;
                let scratch = Scratch::new(&folder, "snapshot")?;
                let made = scratch.path().join("rootfs");
                subvolume::snapshot(&rootfs, &made)?;
                // A subvolume that cannot be written cannot be moved either.
                std::fs::rename(made, &to)?;
                subvolume::set_read_only(&to, true)
            };
            take().or_fault("E-SNAPSHOT", || message)
        })
        .await
    }

    /// Makes the container what it was when the snapshot was taken; what it is now is lost.
    pub(super) async fn restore(
        &self,
        name: &ContainerName,
        snapshot: &SnapshotName,
    ) -> Result<(), Fault> {
        let (_turn, home) = self.existing(name).await?;
        let from = home.snapshot(snapshot);
        if !from.exists() {
            return Err(absent(name, snapshot));
        }
        if Live::find(&home).is_some() {
            return Err(running(name));
        }
        let mut config = Config::load(home.path())?;
        let message = format!("cannot restore {name} to snapshot {snapshot}");
        let (folder, path, rootfs) = (self.folder.clone(), home.path().to_owned(), home.rootfs());
        blocking(move || {
            let failed = || message.clone();
            let scratch = Scratch::new(&folder, "restore").or_fault("E-SNAPSHOT", failed)?;
            let made = scratch.path().join("rootfs");
            subvolume::snapshot(&from, &made).or_fault("E-SNAPSHOT", failed)?;
            let number = subvolume::numbers(&made).or_fault("E-SNAPSHOT", failed)?[0];
            config.subvolumes.push(number);
            config.save(&path)?;
            // In one step; the scratch takes away what was there before.
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            let here = rustix::fs::CWD;
            rustix::fs::renameat_with(here, &made, here, &rootfs, exchange)
                .or_fault("E-SNAPSHOT", failed)
        })
        .await
    }

    /// Deletes one snapshot.
    pub(super) async fn delete_snapshot(
        &self,
        name: &ContainerName,
        snapshot: &SnapshotName,
    ) -> Result<(), Fault> {
        let (_turn, home) = self.existing(name).await?;
        let path = home.snapshot(snapshot);
        if !path.exists() {
            return Err(absent(name, snapshot));
        }
        let gone = subvolume::set_read_only(&path, false)
            .and_then(|()| Scratch::discard(&self.folder, &path))
            .or_fault("E-SNAPSHOT", || {
                format!("cannot delete snapshot {snapshot} of {name}")
            })?;
        blocking(move || {
            drop(gone);
            Ok(())
        })
        .await
    }

    /// Returns the snapshots, oldest first.
    pub(super) fn snapshots(&self, name: &ContainerName) -> Result<Vec<Snapshot>, Fault> {
        let home = self.home(name);
        if !home.exists() {
            return Err(super::missing(name));
        }
        let mut all: Vec<Snapshot> = std::fs::read_dir(home.snapshots())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name: SnapshotName = entry.file_name().to_str()?.parse().ok()?;
                // Its root directory changes last when it is made: nothing can write to it after.
                let created = entry.metadata().ok()?.ctime();
                let created_s = u64::try_from(created).unwrap_or_default();
                Some(Snapshot {
                    name: name.into(),
                    created_s,
                })
            })
            .collect();
        all.sort_by(|a, b| (a.created_s, &a.name).cmp(&(b.created_s, &b.name)));
        Ok(all)
    }
}

fn absent(name: &ContainerName, snapshot: &SnapshotName) -> Fault {
    let message = format!("container {name} has no snapshot {snapshot}");
    Fault::new(Kind::NotFound, "E-SNAPSHOT-NOTFOUND", message)
}
