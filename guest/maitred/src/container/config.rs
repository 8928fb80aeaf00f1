//! What a container was created with, kept beside its root file system.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use wire::{Fault, Kind};

use crate::fault::OrFault;

pub(super) const FILE: &str = "config.json";

/// Numbers that containers may have: 1 is the bridge itself, 255 everyone.
pub(super) const NUMBERS: std::ops::RangeInclusive<u8> = 10..=254;

/// Below it are the ids that Incus takes, from the start of root's range in the image's `/etc/subuid`.
const IDS_FIRST: u32 = 500_000_000;

/// Ids of one container: enough that rootless podman inside finds the ranges of its users.
pub(super) const IDS: u32 = 1_000_000;

/// Largest configuration that is read; ours has some hundred bytes.
const SIZE_MAX: u64 = 64 << 10;

/// The kept part of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Unique among the VM's containers: gives its addresses and ids.
    pub(crate) number: u8,
    /// The person that it is for; none in imported containers whose users were left alone.
    pub(crate) user: Option<User>,
    /// Seconds since the epoch.
    pub(crate) created_s: u64,
    /// Start it whenever the VM starts.
    pub(crate) start_on_boot: bool,
    /// Variables that the image's programs expect.
    pub(crate) environment: Vec<(String, String)>,
    /// Numbers of the subvolumes that it has been; space is accounted by them.
    pub(crate) subvolumes: Vec<u64>,
}

/// An account that exists in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Config {
    /// Returns the configuration of a container that is created now.
    pub(super) fn new(number: u8, user: Option<User>) -> Self {
        let created_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        Self {
            number,
            user,
            created_s,
            start_on_boot: false,
            environment: Vec::new(),
            subvolumes: Vec::new(),
        }
    }

    /// Reads the one in container directory `home`.
    pub(crate) fn load(home: &Path) -> Result<Self, Fault> {
        let path = home.join(FILE);
        let broken = || format!("cannot read {}", path.display());
        let length = std::fs::metadata(&path)
            .or_fault("E-CONTAINER-BROKEN", broken)?
            .len();
        if length > SIZE_MAX {
            let message = format!("{} is {length} bytes long", path.display());
            return Err(Fault::new(Kind::Internal, "E-CONTAINER-BROKEN", message));
        }
        let text = std::fs::read(&path).or_fault("E-CONTAINER-BROKEN", broken)?;
        serde_json::from_slice(&text).or_fault("E-CONTAINER-BROKEN", broken)
    }

    /// Writes it to container directory `home`, as a whole or not at all.
    pub(super) fn save(&self, home: &Path) -> Result<(), Fault> {
        let message = || format!("cannot write {}", home.join(FILE).display());
        let text = serde_json::to_vec_pretty(self).or_fault("E-CONTAINER-CONFIG", message)?;
        let new = home.join(".config.json");
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&new, home.join(FILE))
        };
        write().or_fault("E-CONTAINER-CONFIG", message)
    }

    /// Returns the id in the VM of the container's id 0. Every container has its own, so that two containers
    /// share no process owner.
    pub(crate) fn first_id(&self) -> u32 {
        IDS_FIRST + u32::from(self.number) * IDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_comes_back_as_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let user = User {
            name: "ada".to_owned(),
            uid: 1000,
            gid: 1000,
        };
        let config = Config::new(12, Some(user));
        config.save(folder.path()).unwrap();
        assert_eq!(Config::load(folder.path()).unwrap(), config);
        assert_eq!(config.first_id(), 512_000_000);
    }

    #[test]
    fn a_damaged_configuration_is_a_fault_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{", "{\"number\": 300}", "{\"surprise\": 1}"] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            let fault = Config::load(folder.path()).unwrap_err();
            assert_eq!(fault.parts().code, "E-CONTAINER-BROKEN", "{text:?}");
            assert!(fault.to_string().contains(FILE));
        }
    }

    #[test]
    fn ids_of_all_containers_fit_and_do_not_meet() {
        let last = Config::new(*NUMBERS.end(), None).first_id() + IDS;
        // What the image's /etc/subuid gives to root.
        assert!(last <= 100_000 + 1_000_000_000);
    }
}
