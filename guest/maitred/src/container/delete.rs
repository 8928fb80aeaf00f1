//! Deletes a container with its snapshots.

use std::time::Duration;

use wire::{ContainerName, Fault};

use super::create::blocking;
use super::scratch::Scratch;
use super::{Containers, Live, running, stop};
use crate::fault::OrFault;

impl Containers {
    /// Deletes the container; `force` stops one that runs.
    pub(super) async fn delete(&self, name: &ContainerName, force: bool) -> Result<(), Fault> {
        let (_turn, home) = self.existing(name).await?;
        if let Some(live) = Live::find(&home) {
            if !force {
                return Err(running(name));
            }
            stop::end(&home, &live, Duration::ZERO).await?;
        }
        for file in [home.recipe(), home.pid_file(), home.log(), home.console()] {
            let _ = std::fs::remove_file(file);
        }
        // Gone in one step; its space comes back afterwards.
        let gone = Scratch::discard(&self.folder, home.path())
            .or_fault("E-CONTAINER-DELETE", || {
                format!("cannot delete container {name}")
            })?;
        blocking(move || {
            drop(gone);
            Ok(())
        })
        .await
    }
}
