//! What all VMs share in the daemon on the host: places, settings, the engine, and the numbers given out.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use link::config::{Config, EngineChoice};
use link::places::{Places, sibling};
use spec::device::FIRST_GUEST_CID;
use spec::windows::Modes;
use wire::{Bytes, Fault, Mib, VmName};

use crate::disk::{self, Folder, Settings};
use crate::engine::{self, Chosen};
use crate::guest::windows;
use crate::image::Image;

/// Memory of a new VM at most, when the user does not say.
const MEMORY_DEFAULT_MAX: u32 = 4096;

/// Memory of a new VM at least.
const MEMORY_DEFAULT_MIN: u32 = 512;

/// Disk of a new VM when the host has room for it. It is sparse: this is a limit, not a reservation.
const DISK_DEFAULT: Bytes = Bytes(64 << 30);

/// Disk of a new VM when the host has little room.
const DISK_DEFAULT_MIN: Bytes = Bytes(10 << 30);

/// The daemon's surroundings.
#[derive(Debug)]
pub(crate) struct World {
    /// Where everything lies.
    pub(crate) places: Places,
    /// What the user set.
    pub(crate) config: Config,
    /// The program whose `device` command runs the daemons.
    pub(crate) crosvm: PathBuf,
    /// The program that shows a VM's windows.
    pub(crate) windows: PathBuf,
    cids: Mutex<BTreeSet<u32>>,
}

impl World {
    /// Returns the surroundings for `places` and `config`.
    ///
    /// # Errors
    /// When this program's own path cannot be read.
    pub(crate) fn new(places: Places, config: Config) -> io::Result<Self> {
        Ok(Self {
            places,
            config,
            crosvm: sibling("crosvm")?,
            windows: sibling(windows::PROGRAM)?,
            cids: Mutex::default(),
        })
    }

    /// Opens the guest image; it is looked at anew each time, since it may be rebuilt while the daemon runs.
    ///
    /// # Errors
    /// When it is not whole.
    pub(crate) fn image(&self) -> Result<Image, Fault> {
        let folder = self.places.image(self.config.image.as_deref());
        Image::open(&folder, self.places.image_seen())
    }

    /// Chooses the engine for a start, which may ask for one.
    ///
    /// # Errors
    /// When it is not installed.
    pub(crate) fn engine(&self, asked: Option<EngineChoice>) -> Result<Chosen, Fault> {
        engine::choose(asked, self.config.engine, &self.crosvm)
    }

    /// Returns the folder of VM `name`.
    pub(crate) fn folder(&self, name: &VmName) -> Folder {
        Folder::new(self.places.vms(), name.clone())
    }

    /// Returns the settings of a new VM that the request does not name.
    pub(crate) fn default_settings(&self) -> Settings {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let cpus = u16::try_from(cpus)
            .unwrap_or(spec::vm::MAX_VCPUS)
            .min(spec::vm::MAX_VCPUS);
        Settings {
            cpus: self.config.cpus.unwrap_or(cpus),
            memory: self.config.memory.unwrap_or_else(half_of_memory),
            created_s: disk::now_s(),
            clipboard: Modes::default(),
        }
    }

    /// Returns the disk size of a new VM that the request does not name.
    pub(crate) fn default_disk(&self) -> Bytes {
        self.config.disk.unwrap_or_else(|| {
            let there = self.places.vms();
            let there = there.ancestors().find(|path| path.exists());
            let free = there.and_then(|path| rustix::fs::statvfs(path).ok());
            let free = free.map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
            // Whole GiB, and a tenth stays with the user.
            let room = Bytes((free / 10 * 9) >> 30 << 30);
            room.clamp(DISK_DEFAULT_MIN, DISK_DEFAULT)
        })
    }

    /// Gives out the lowest free context identifier.
    pub(crate) fn cid(self: &Arc<Self>) -> Cid {
        let mut taken = self.cids.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (FIRST_GUEST_CID..)
            .find(|number| !taken.contains(number))
            .expect("there are fewer VMs than numbers");
        taken.insert(number);
        Cid {
            number,
            world: Arc::clone(self),
        }
    }
}

/// A context identifier and the VM's folders of sockets, all free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Cid {
    /// The number.
    pub(crate) number: u32,
    world: Arc<World>,
}

impl Drop for Cid {
    fn drop(&mut self) {
        let number = self.number.to_string();
        let places = &self.world.places;
        for folder in [
            places.vm_sockets(self.number),
            places.displays().join(number),
        ] {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %folder.display(), %error, "cannot remove sockets");
                }
                _ => {}
            }
        }
        let mut taken = self
            .world
            .cids
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.number);
    }
}

fn half_of_memory() -> Mib {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total_kib: Option<u32> = text
        .strip_prefix("MemTotal:")
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let half = total_kib.map_or(0, |kib| kib / 2 / 1024);
    Mib(half.clamp(MEMORY_DEFAULT_MIN, MEMORY_DEFAULT_MAX))
}
