//! Gives a stopped container another name.

use wire::{ContainerName, Fault};

use super::rootfs::Rootfs;
use super::{Containers, Live, furnish, running};
use crate::fault::OrFault;

impl Containers {
    pub(super) async fn rename(
        &self,
        name: &ContainerName,
        new: &ContainerName,
    ) -> Result<(), Fault> {
        let (_turns, from, to) = self.pair(name, new).await?;
        if Live::find(&from).is_some() {
            return Err(running(name));
        }
        let message = || format!("cannot rename container {name} to {new}");
        let rootfs = Rootfs::open(&from.rootfs()).or_fault("E-CONTAINER-BROKEN", message)?;
        std::fs::rename(from.path(), to.path()).or_fault("E-CONTAINER-RENAME", message)?;
        furnish::rename(&rootfs, name, new).or_fault("E-CONTAINER-RENAME", message)
    }
}
