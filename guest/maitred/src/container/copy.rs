//! Copies a container under another name; the copy shares all unchanged data with it.

use wire::{ContainerName, Fault};

use super::config::Config;
use super::create::blocking;
use super::home::ROOTFS;
use super::progress::Reporter;
use super::rootfs::{Owner, Rootfs};
use super::scratch::Scratch;
use super::{Containers, furnish, subvolume};
use crate::fault::OrFault;

impl Containers {
    /// Copies the container as it is now, running or not, without its snapshots.
    pub(super) async fn copy(
        &self,
        name: &ContainerName,
        new: &ContainerName,
        report: &Reporter,
    ) -> Result<(), Fault> {
        let (_turns, from, to) = self.pair(name, new).await?;
        let message = format!("cannot copy container {name} to {new}");
        let mut config = Config::load(from.path())?;
        let scratch =
            Scratch::new(&self.folder, "copy").or_fault("E-CONTAINER-COPY", || message.clone())?;
        let stage = report.stage("files").await;
        let (source, target) = (from.rootfs(), scratch.path().join(ROOTFS));
        let (old, new) = (name.clone(), new.clone());
        blocking(move || {
            let copy = || -> std::io::Result<()> {
                subvolume::snapshot(&source, &target)?;
                let rootfs = Rootfs::open(&target)?;
                furnish::rename(&rootfs, &old, &new)?;
                // Two machines with one number confuse what the number is for.
                if rootfs.exists("etc/machine-id") {
                    rootfs.replace("etc/machine-id".as_ref(), b"", Owner::root(0o444))?;
                }
                Ok(())
            };
            copy().or_fault("E-CONTAINER-COPY", || message)
        })
        .await?;
        stage.done().await;
        config.created_s = Config::new(0, None).created_s;
        self.commit(scratch, &mut config, &to).await
    }
}
