//! Makes root file systems from what the host streams: tarballs, image pairs, OCI archives and our own exports.
//!
//! Everything in them is hostile. It is unpacked here, on the guest's side of the boundary, beneath one new
//! directory and never through a link ([`unpack`]).

mod compression;
mod incoming;
mod oci;
pub(super) mod ours;
mod pair;
mod tree;
mod unpack;

use std::path::Path;

use tokio::sync::mpsc;
use tonic::Streaming;
use wire::proto::create_container::Part;
use wire::proto::{ContainerSource, CreateContainer, FileChunk};
use wire::{ContainerName, Fault, Kind};

use super::config::User;
use super::create::from_base;
use super::home::ROOTFS;
use super::subvolume;
use crate::fault::OrFault;

pub(super) use incoming::Incoming;

/// Chunks that wait for the disk before the host has to.
const WAITING: usize = 4;

/// Variables of an image's environment that are kept, and their bytes.
pub(super) const ENVIRONMENT_MAX: usize = 128;
pub(super) const VARIABLE_MAX: usize = 4096;

/// What an image says beside its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Imported {
    /// Variables that its programs expect.
    pub(super) environment: Vec<(String, String)>,
    /// The person that it was for, in an export of ours.
    pub(super) user: Option<User>,
    /// The name that it had there.
    pub(super) name: Option<ContainerName>,
}

/// Makes `scratch/rootfs` from `source`.
pub(super) fn bring(
    source: ContainerSource,
    base: &Path,
    scratch: &Path,
    mut incoming: Incoming,
) -> Result<Imported, Fault> {
    if source == ContainerSource::Base {
        return from_base(base, scratch).map(|()| Imported::default());
    }
    let rootfs = scratch.join(ROOTFS);
    subvolume::create(&rootfs).or_fault("E-CONTAINER-CREATE", || {
        "cannot make a subvolume".to_owned()
    })?;
    match source {
        ContainerSource::Base | ContainerSource::Rootfs => {
            unpack::archive(incoming.file(0), &rootfs, &unpack::Take::All)?;
            Ok(Imported::default())
        }
        ContainerSource::Image => pair::bring(&mut incoming, scratch, &rootfs),
        ContainerSource::Oci => oci::bring(incoming.file(0), scratch, &rootfs),
        ContainerSource::Export => ours::bring(incoming.file(0), &rootfs),
    }
}

/// Passes the files of a request on to the thread that unpacks them.
pub(super) async fn feed(
    mut parts: Streaming<CreateContainer>,
    feed: mpsc::Sender<Result<FileChunk, Fault>>,
) {
    loop {
        let chunk = match parts.message().await {
            Ok(Some(CreateContainer {
                part: Some(Part::File(chunk)),
            })) => Ok(chunk),
            Ok(Some(_)) => {
                let message = "a part of a new container is not a piece of a file";
                Err(Fault::new(Kind::Invalid, "E-INVALID", message))
            }
            Ok(None) => return,
            Err(status) => Err(Fault::from(status)),
        };
        let failed = chunk.is_err();
        if feed.send(chunk).await.is_err() || failed {
            return;
        }
    }
}
