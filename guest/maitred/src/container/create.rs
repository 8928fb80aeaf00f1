//! Creates containers: from the base without copying anything, or from files that the host streams.

use std::path::{Path, PathBuf};

use wire::proto::{ContainerSource, CreateContainerHeader, User};
use wire::{ContainerName, Fault, Kind};

use super::config::{Config, NUMBERS};
use super::furnish::{adopt, furnish};
use super::home::ROOTFS;
use super::import::{self, Incoming};
use super::progress::Reporter;
use super::scratch::Scratch;
use super::{Containers, Home, subvolume, taken};
use crate::fault::OrFault;

/// A request whose names have been read.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) name: ContainerName,
    pub(super) source: ContainerSource,
    pub(super) user: Option<User>,
    pub(super) start_on_boot: bool,
}

impl Order {
    pub(super) fn parse(header: CreateContainerHeader) -> Result<Self, Fault> {
        Ok(Self {
            name: super::calls::container(&header.container)?,
            source: header.source(),
            user: header.user,
            start_on_boot: header.start_on_boot,
        })
    }
}

impl Containers {
    /// Creates a container; nothing is left of one that fails.
    pub(super) async fn create(
        &self,
        order: Order,
        incoming: Incoming,
        report: &Reporter,
    ) -> Result<(), Fault> {
        let _turn = self.turn(&order.name).await;
        let home = self.home(&order.name);
        if home.exists() {
            return Err(taken(&order.name));
        }
        let message = || format!("cannot create container {}", order.name);
        let scratch = Scratch::new(&self.folder, "new").or_fault("E-CONTAINER-CREATE", message)?;
        let stage = report.stage("files").await;
        let path = scratch.path().to_owned();
        let (base, name) = (self.base.clone(), order.name.clone());
        let Order {
            source,
            user,
            start_on_boot,
            ..
        } = order;
        let mut config = blocking(move || {
            let imported = import::bring(source, &base, &path, incoming)?;
            let mut config = match imported.name {
                Some(old) => adopt(&path.join(ROOTFS), (&old, &name), user.as_ref())?,
                None => furnish(&path.join(ROOTFS), &name, user.as_ref())?,
            };
            config.user = config.user.or(imported.user);
            config.environment = imported.environment;
            config.start_on_boot = start_on_boot;
            Ok(config)
        })
        .await
        .map_err(|fault| fault.while_doing(message()))?;
        stage.done().await;
        self.commit(scratch, &mut config, &home).await
    }

    /// Gives a whole container its number and its name.
    pub(super) async fn commit(
        &self,
        scratch: Scratch,
        config: &mut Config,
        home: &Home,
    ) -> Result<(), Fault> {
        let message = || format!("cannot create container {}", home.name);
        let _numbers = self.numbers.lock().await;
        let used: Vec<u8> = self
            .all()
            .into_iter()
            .filter_map(|(_, c)| Some(c.ok()?.number))
            .collect();
        config.number = NUMBERS
            .into_iter()
            .find(|n| !used.contains(n))
            .ok_or_else(|| {
                let count = NUMBERS.count();
                Fault::new(Kind::Exhausted, "E-CONTAINER-LIMIT", message())
                    .cause(format!("a VM has at most {count} containers"))
            })?;
        let rootfs = scratch.path().join(ROOTFS);
        config.subvolumes =
            subvolume::numbers(&rootfs).or_fault("E-CONTAINER-CREATE", message)?[..1].to_vec();
        std::fs::create_dir_all(scratch.path().join(super::home::SNAPSHOTS))
            .or_fault("E-CONTAINER-CREATE", message)?;
        config.save(scratch.path())?;
        scratch
            .keep(home.path())
            .or_fault("E-CONTAINER-CREATE", message)
    }
}

/// Runs `work`, which waits for the disk, on another thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let span = tracing::Span::current();
    let result = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    result.or_fault("E-INTERNAL", || "work on a container broke off".to_owned())?
}

/// Makes the root file system of a default container in `scratch`.
pub(super) fn from_base(base: &Path, scratch: &Path) -> Result<(), Fault> {
    if !base.is_dir() {
        let message = "the data disk has no base for new containers";
        return Err(Fault::new(Kind::NotFound, "E-BASE-MISSING", message));
    }
    let to: PathBuf = scratch.join(ROOTFS);
    subvolume::snapshot(base, &to)
        .or_fault("E-CONTAINER-CREATE", || "cannot copy the base".to_owned())
}
