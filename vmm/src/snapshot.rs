//! A whole machine in a file, and a machine made from one, on the host.
//!
//! ```text
//!        0  "testudo-snapshot", the length of the description, the description as JSON
//!   16 MiB  guest memory, as in the file behind it; pages of zeros are holes
//! ```
//! The processors stand still and the devices have been stopped while it is written (ADR 23). Of a device there is what the
//! guest sees of it and where its queues stand: daemons are new after a restore, and what they talked with is gone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use serde::{Deserialize, Serialize};
use spec::units::Mib;
use spec::vm::VmSpec;
use thiserror::Error;

use crate::balloon;
use crate::cpu::state::State as Processor;
use crate::ioapic;
use crate::memory::Memory;
use crate::power;
use crate::virtio_pci::state::State as Function;

const MAGIC: &[u8; 16] = b"testudo-snapshot";
/// The magic and the length.
const HEADER_BYTES: u64 = 24;
/// Where guest memory begins; a multiple of every page size. 64 processors are described in 3 MiB.
const MEMORY_AT: u64 = 16 << 20;

/// The version of the description that this build writes and reads.
const VERSION: u32 = 1;

/// Why there is no snapshot, or no machine made from one.
#[derive(Debug, Error)]
pub(crate) enum SnapshotError {
    #[error("cannot read the snapshot")]
    Read(#[source] io::Error),
    #[error("the file is no snapshot")]
    NoSnapshot,
    #[error("the snapshot has {has} of its {wants} bytes")]
    Cut { has: u64, wants: u64 },
    #[error("cannot parse the snapshot")]
    Parse(#[source] serde_json::Error),
    #[error("the snapshot has version {0}, this build reads {VERSION}")]
    Version(u32),
    #[error("the snapshot is of a machine with {theirs}, the specification says {ours}")]
    Different { theirs: String, ours: String },
    #[error("the snapshot does not fit device {device}: {problem}")]
    Device {
        device: String,
        problem: &'static str,
    },
    #[error("cannot write the snapshot")]
    Write(#[source] io::Error),
}

/// A machine, without its memory.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Snapshot {
    pub(crate) version: u32,
    /// Of the whole file.
    pub(crate) bytes: u64,
    pub(crate) memory: Mib,
    /// Nanoseconds on the guest's clock.
    pub(crate) clock: u64,
    pub(crate) processors: Vec<Processor>,
    pub(crate) ioapic: ioapic::State,
    pub(crate) power: power::State,
    pub(crate) balloon: Option<balloon::State>,
    pub(crate) functions: Vec<Plugged>,
}

/// A function and where it is plugged in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plugged {
    pub(crate) name: String,
    pub(crate) slot: usize,
    pub(crate) function: Function,
}

impl Snapshot {
    /// The version that [`Snapshot::write`] writes.
    pub(crate) const VERSION: u32 = VERSION;

    /// Reads the description and checks that it is of a machine of this size.
    ///
    /// # Errors
    /// The file is no snapshot, or of another machine.
    pub(crate) fn read(file: &File, spec: &VmSpec) -> Result<Self, SnapshotError> {
        let mut header = [0; HEADER_BYTES as usize];
        file.read_exact_at(&mut header, 0)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => SnapshotError::NoSnapshot,
                _ => SnapshotError::Read(error),
            })?;
        let (magic, length) = header.split_at(MAGIC.len());
        let length = length.try_into().map(u64::from_le_bytes).unwrap_or(0);
        if magic != MAGIC || length > MEMORY_AT - HEADER_BYTES {
            return Err(SnapshotError::NoSnapshot);
        }
        let mut text = vec![0; usize::try_from(length).map_err(|_| SnapshotError::NoSnapshot)?];
        file.read_exact_at(&mut text, HEADER_BYTES)
            .map_err(SnapshotError::Read)?;
        let snapshot: Self = serde_json::from_slice(&text).map_err(SnapshotError::Parse)?;
        snapshot.fits(spec)?;
        let has = file.metadata().map_err(SnapshotError::Read)?.len();
        if has < snapshot.bytes {
            let wants = snapshot.bytes;
            return Err(SnapshotError::Cut { has, wants });
        }
        Ok(snapshot)
    }

    /// With as many functions as there were, and each of them found, nothing is missing.
    fn fits(&self, spec: &VmSpec) -> Result<(), SnapshotError> {
        if self.version != VERSION {
            return Err(SnapshotError::Version(self.version));
        }
        let size = |memory: Mib, vcpus: usize, functions: usize| {
            format!("{memory}, {vcpus} vCPUs and {functions} devices")
        };
        // The console, and the balloon if it is wanted, are in no specification's list.
        let own = 1 + usize::from(spec.options.give_back);
        let theirs = size(self.memory, self.processors.len(), self.functions.len());
        let ours = size(spec.memory, spec.vcpus.into(), spec.devices.len() + own);
        if theirs == ours {
            Ok(())
        } else {
            Err(SnapshotError::Different { theirs, ours })
        }
    }

    /// Writes the machine with its memory into an empty file.
    ///
    /// # Errors
    /// There is no room for it.
    pub(crate) fn write(&mut self, file: &File, memory: &Memory) -> Result<(), SnapshotError> {
        memory.save(file, MEMORY_AT).map_err(SnapshotError::Write)?;
        self.bytes = file.metadata().map_err(SnapshotError::Write)?.len();
        let text = serde_json::to_vec(self).expect("plain data");
        let length = text.len() as u64;
        assert!(length <= MEMORY_AT - HEADER_BYTES, "64 processors fit");
        file.write_all_at(&text, HEADER_BYTES)
            .map_err(SnapshotError::Write)?;
        // The first bytes last: a file that was not finished is no snapshot.
        let header = [MAGIC.as_slice(), &length.to_le_bytes()].concat();
        file.write_all_at(&header, 0).map_err(SnapshotError::Write)
    }

    /// Fills memory, which must be empty.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn fill(file: &File, memory: &Memory) -> Result<(), SnapshotError> {
        memory.load(file, MEMORY_AT).map_err(SnapshotError::Read)
    }

    /// Returns what the function called `name` was, and where.
    ///
    /// # Errors
    /// The machine had no such function.
    pub(crate) fn function(&self, name: &str) -> Result<&Plugged, SnapshotError> {
        let found = self.functions.iter().find(|plugged| plugged.name == name);
        found.ok_or_else(|| SnapshotError::Device {
            device: name.to_owned(),
            problem: "there is no such device in it",
        })
    }
}

#[cfg(test)]
mod tests;
