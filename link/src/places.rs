//! Where things lie on the host: the one list of paths that the daemon and its clients share.
//!
//! The four roots follow the XDG base directory specification; a variable that is unset, empty or relative
//! counts as not set. Nothing is created here but the runtime folder.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::getuid;
use thiserror::Error;
use wire::VmName;

/// The folder name under each XDG root.
const PRODUCT: &str = "testudo";

/// Where a distribution's package puts the guest image.
const SYSTEM_IMAGE: &str = "/usr/share/testudo/image";

/// Files whose presence makes a folder a guest image.
const IMAGE_MARK: &str = "manifest.json";

/// Why the user's folders cannot be used.
#[derive(Debug, Error)]
pub enum PlacesError {
    /// Neither `HOME` nor the XDG variables say where the user's files belong.
    #[error("cannot find the home folder: HOME is not set to an absolute path")]
    NoHome,
    /// The runtime folder cannot be made or looked at.
    #[error("cannot create {path}", path = path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody else owns the runtime folder, or it is no folder.
    #[error("{path} does not belong to this user", path = path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
}

/// The roots of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    runtime: PathBuf,
    data: PathBuf,
    state: PathBuf,
    config: PathBuf,
}

impl Places {
    /// Returns the places of the user that runs this program.
    ///
    /// # Errors
    /// When there is no home folder to derive them from.
    pub fn of_user() -> Result<Self, PlacesError> {
        Self::from_variables(|name| std::env::var_os(name), getuid().as_raw())
    }

    /// Returns the places that environment variables given by `get` lead to.
    ///
    /// # Errors
    /// When there is no home folder to derive them from.
    pub fn from_variables(
        get: impl Fn(&str) -> Option<OsString>,
        uid: u32,
    ) -> Result<Self, PlacesError> {
        let absolute = |name: &str| {
            get(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home = absolute("HOME");
        let root = |name: &str, fallback: &str| {
            absolute(name)
                .or_else(|| home.as_ref().map(|home| home.join(fallback)))
                .map(|root| root.join(PRODUCT))
                .ok_or(PlacesError::NoHome)
        };
        Ok(Self {
            runtime: absolute("XDG_RUNTIME_DIR").map_or_else(
                || PathBuf::from(format!("/tmp/{PRODUCT}-{uid}")),
                |root| root.join(PRODUCT),
            ),
            data: root("XDG_DATA_HOME", ".local/share")?,
            state: root("XDG_STATE_HOME", ".local/state")?,
            config: root("XDG_CONFIG_HOME", ".config")?,
        })
    }

    /// Makes the runtime folder with mode 0700; one that exists must be a folder of this user (in the
    /// fallback below /tmp anybody could have made it first).
    ///
    /// # Errors
    /// When it cannot be made or belongs to somebody else.
    pub fn prepare_runtime(&self) -> Result<(), PlacesError> {
        let create = |source| PlacesError::Create {
            path: self.runtime.clone(),
            source,
        };
        match std::fs::DirBuilder::new().mode(0o700).create(&self.runtime) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(create(error));
            }
            _ => {}
        }
        let found = std::fs::symlink_metadata(&self.runtime).map_err(create)?;
        if !found.is_dir() || found.uid() != getuid().as_raw() {
            return Err(PlacesError::Foreign {
                path: self.runtime.clone(),
            });
        }
        if found.mode() & 0o077 != 0 {
            std::fs::set_permissions(&self.runtime, PermissionsExt::from_mode(0o700))
                .map_err(create)?;
        }
        Ok(())
    }

    /// Returns the daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("concierge.sock")
    }

    /// Returns the file whose lock the one daemon holds for as long as it lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.runtime.join("concierge.lock")
    }

    /// Returns the folder of sockets of all running VMs.
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        self.runtime.join("vm")
    }

    /// Returns the folder of sockets of the running VM with context identifier `cid`. Numbers keep the path
    /// below the 108 bytes of a socket address.
    #[must_use]
    pub fn vm_sockets(&self, cid: u32) -> PathBuf {
        self.sockets().join(cid.to_string())
    }

    /// Returns where a running VM's hybrid vsock listens.
    #[must_use]
    pub fn vsock(&self, cid: u32) -> PathBuf {
        self.vm_sockets(cid).join("vsock.sock")
    }

    /// Returns the folder of compositors that running VMs may use, by their second names. No device daemon sees it.
    #[must_use]
    pub fn displays(&self) -> PathBuf {
        self.runtime.join("display")
    }

    /// Returns the folder that holds one folder for each VM.
    #[must_use]
    pub fn vms(&self) -> PathBuf {
        self.data.join("vms")
    }

    /// Returns the folder of a VM's disk and settings.
    #[must_use]
    pub fn vm(&self, name: &VmName) -> PathBuf {
        self.vms().join(name.as_str())
    }

    /// Returns the folder of a VM's logs.
    #[must_use]
    pub fn vm_logs(&self, name: &VmName) -> PathBuf {
        self.state.join("vms").join(name.as_str())
    }

    /// Returns the daemon's own log, written when no service manager collects it.
    #[must_use]
    pub fn daemon_log(&self) -> PathBuf {
        self.state.join("concierge.log")
    }

    /// Returns the daemon's memory of which image files it has read in full and found right.
    #[must_use]
    pub fn image_seen(&self) -> PathBuf {
        self.state.join("image-seen.json")
    }

    /// Returns the configuration file, which need not exist.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// Returns the user's own guest image folder, where `cargo xtask up` puts it.
    #[must_use]
    pub fn user_image(&self) -> PathBuf {
        self.data.join("image")
    }

    /// Returns the guest image folder: the `configured` one, else the user's, else the distribution's; the
    /// user's when none of them holds an image.
    #[must_use]
    pub fn image(&self, configured: Option<&Path>) -> PathBuf {
        if let Some(configured) = configured {
            return configured.to_owned();
        }
        let user = self.user_image();
        let system = PathBuf::from(SYSTEM_IMAGE);
        if !user.join(IMAGE_MARK).is_file() && system.join(IMAGE_MARK).is_file() {
            return system;
        }
        user
    }

    /// Returns the folder of sockets and locks.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Returns the folder of images and disks.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns the folder of logs.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }
}

/// Returns the program `name` beside the running one: all programs are installed in one folder, and the names
/// in `PATH` are links into it.
///
/// # Errors
/// When the running program's own path cannot be read.
pub fn sibling(name: &str) -> io::Result<PathBuf> {
    let own = std::fs::read_link("/proc/self/exe")?;
    Ok(own.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(variables: &'static [(&str, &str)]) -> Result<Places, PlacesError> {
        let get = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Places::from_variables(get, 1000)
    }

    #[test]
    fn unset_empty_and_relative_variables_fall_back_to_home() {
        let fallback = places(&[("HOME", "/home/u")]).unwrap();
        assert_eq!(fallback.data(), Path::new("/home/u/.local/share/testudo"));
        assert_eq!(
            fallback.socket(),
            Path::new("/tmp/testudo-1000/concierge.sock")
        );
        let odd = [
            ("HOME", "/home/u"),
            ("XDG_DATA_HOME", ""),
            ("XDG_STATE_HOME", "here"),
        ];
        assert_eq!(places(Box::leak(Box::new(odd))).unwrap(), fallback);
    }

    #[test]
    fn variables_win_over_home() {
        let places = places(&[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/1000")]).unwrap();
        let vsock = Path::new("/run/user/1000/testudo/vm/3/vsock.sock");
        assert_eq!(places.vsock(3), vsock);
    }

    #[test]
    fn without_home_there_is_nowhere_to_keep_a_disk() {
        assert!(matches!(places(&[]), Err(PlacesError::NoHome)));
    }

    #[test]
    fn a_runtime_folder_open_to_others_is_closed() {
        let root = tempfile::tempdir().unwrap();
        let runtime = root.path().join("testudo");
        std::fs::create_dir(&runtime).unwrap();
        std::fs::set_permissions(&runtime, PermissionsExt::from_mode(0o777)).unwrap();
        let path = root.path().as_os_str().to_owned();
        let places = Places::from_variables(|_| Some(path.clone()), getuid().as_raw()).unwrap();
        places.prepare_runtime().unwrap();
        assert_eq!(std::fs::metadata(&runtime).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_runtime_folder_that_is_a_link_is_refused() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", root.path().join("testudo")).unwrap();
        let path = root.path().as_os_str().to_owned();
        let places = Places::from_variables(|_| Some(path.clone()), getuid().as_raw()).unwrap();
        assert!(matches!(
            places.prepare_runtime(),
            Err(PlacesError::Foreign { .. })
        ));
    }
}
