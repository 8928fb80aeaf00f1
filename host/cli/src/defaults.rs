//! Which VM and container are meant when none is named.
//!
//! In order: the flag, `TESTUDO_VM` and `TESTUDO_CONTAINER`, what `testudo default` chose, `config.toml`, and
//! `penguin` in `termina`. The choice has a file of its own among the data, since the user's configuration is
//! never rewritten by a program.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

use link::config::Config;
use link::places::Places;
use serde::{Deserialize, Serialize};
use wire::{ContainerName, Fault, Kind, NameError, VmName};

/// The names of this call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Defaults {
    /// The VM.
    pub(crate) vm: VmName,
    /// The container.
    pub(crate) container: ContainerName,
}

/// What `testudo default` chose.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choice {
    /// The VM.
    pub(crate) vm: Option<VmName>,
    /// The container.
    pub(crate) container: Option<ContainerName>,
}

impl Defaults {
    /// Returns the names that hold where no flag and no variable says otherwise.
    pub(crate) fn load(places: &Places) -> Result<Self, Fault> {
        Self::with_variables(places, |name| std::env::var(name).ok())
    }

    fn with_variables(
        places: &Places,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Fault> {
        let config = Config::load(places)?;
        let mut choice = Choice::load(places)?;
        choice.vm = variable(&get, "TESTUDO_VM")?.or(choice.vm);
        choice.container = variable(&get, "TESTUDO_CONTAINER")?.or(choice.container);
        Ok(Self {
            vm: choice.vm.unwrap_or_else(|| config.default_vm()),
            container: choice
                .container
                .unwrap_or_else(|| config.default_container()),
        })
    }
}

impl Choice {
    /// Reads the choice; none has been made when the file is missing.
    pub(crate) fn load(places: &Places) -> Result<Self, Fault> {
        let path = path(places);
        let fault = || {
            let message = format!("cannot read the chosen default in {}", path.display());
            Fault::new(Kind::Invalid, "E-CONFIG", message)
                .hint("choose again: testudo default NAME")
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| fault().cause(error.message())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(fault().because(&error)),
        }
    }

    /// Makes it the choice from now on.
    pub(crate) fn save(&self, places: &Places) -> Result<(), Fault> {
        let write = || -> io::Result<()> {
            std::fs::create_dir_all(places.data())?;
            let mut file = tempfile::NamedTempFile::new_in(places.data())?;
            file.write_all(toml::to_string(self).map_err(io::Error::other)?.as_bytes())?;
            file.persist(path(places))?;
            Ok(())
        };
        write().map_err(|error| {
            let message = format!("cannot write {}", path(places).display());
            Fault::new(Kind::Internal, "E-FILE", message).because(&error)
        })
    }
}

/// Returns the name in variable `key`; one that is empty counts as not set.
fn variable<T: FromStr<Err = NameError>>(
    get: impl Fn(&str) -> Option<String>,
    key: &str,
) -> Result<Option<T>, Fault> {
    let Some(name) = get(key).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    name.parse().map(Some).map_err(|error: NameError| {
        Fault::new(Kind::Invalid, "E-NAME", format!("{key} is set to no name")).because(&error)
    })
}

fn path(places: &Places) -> PathBuf {
    places.data().join("default.toml")
}

/// Returns this user's folders.
pub(crate) fn places() -> Result<Places, Fault> {
    Places::of_user().map_err(|error| {
        Fault::new(Kind::Invalid, "E-PLACES", error.to_string())
            .hint("set HOME to your home folder")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(places: &Places, variables: &[(&str, &str)]) -> Result<(String, String), Fault> {
        let get = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let Defaults { vm, container } = Defaults::with_variables(places, get)?;
        Ok((vm.into(), container.into()))
    }

    #[test]
    fn variables_win_over_the_choice_and_the_choice_over_the_configuration() {
        let names = |vm: &str, container: &str| (vm.to_owned(), container.to_owned());
        let home = tempfile::tempdir().unwrap();
        let root = home.path().as_os_str().to_owned();
        let places = Places::from_variables(|_| Some(root.clone()), 0).unwrap();
        assert_eq!(load(&places, &[]).unwrap(), names("termina", "penguin"));

        std::fs::create_dir_all(places.config_file().parent().unwrap()).unwrap();
        std::fs::write(places.config_file(), "vm = \"lab\"\ncontainer = \"one\"\n").unwrap();
        let choice = Choice {
            vm: None,
            container: Some("two".parse().unwrap()),
        };
        choice.save(&places).unwrap();
        assert_eq!(Choice::load(&places).unwrap(), choice);
        assert_eq!(load(&places, &[]).unwrap(), names("lab", "two"));

        let set = [("TESTUDO_CONTAINER", "three"), ("TESTUDO_VM", "")];
        assert_eq!(load(&places, &set).unwrap(), names("lab", "three"));
        assert_eq!(
            load(&places, &[("TESTUDO_VM", "No")])
                .unwrap_err()
                .parts()
                .code,
            "E-NAME"
        );
    }
}
