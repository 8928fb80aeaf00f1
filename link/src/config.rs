//! The user's `config.toml`, read by the daemon and its clients on the host. Every key is optional; an unknown
//! one is an error, so that a misspelt setting is never silently ignored.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize};
use wire::{Bytes, ContainerName, Fault, Kind, Mib, VmName};

use crate::places::Places;

/// Which program runs the virtual machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// The best one that this machine can run.
    #[default]
    Auto,
    /// Our own, on hardware virtualisation.
    Crosvm,
    /// QEMU, which emulates the processor.
    Qemu,
}

impl FromStr for EngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "crosvm" => Ok(Self::Crosvm),
            "qemu" => Ok(Self::Qemu),
            _ => Err(format!(
                "there is no engine {text:?}; there are auto, crosvm and qemu"
            )),
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Crosvm => "crosvm",
            Self::Qemu => "qemu",
        })
    }
}

/// What the user set; `None` is left to the program that needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The VM that is meant when none is named.
    pub vm: Option<VmName>,
    /// The container that is meant when none is named.
    pub container: Option<ContainerName>,
    /// Virtual processors of new VMs.
    pub cpus: Option<u16>,
    /// Memory of new VMs.
    #[serde(default, deserialize_with = "size")]
    pub memory: Option<Mib>,
    /// Disk size of new VMs.
    #[serde(default, deserialize_with = "size")]
    pub disk: Option<Bytes>,
    /// Which engine runs VMs.
    #[serde(default)]
    pub engine: EngineChoice,
    /// The guest image folder.
    pub image: Option<PathBuf>,
    /// Seconds without a client and without a VM after which the daemon ends.
    pub idle_seconds: Option<u64>,
}

impl Config {
    /// Reads the user's file; a missing one sets nothing.
    ///
    /// # Errors
    /// A fault that names the file, and the line when its content is wrong.
    pub fn load(places: &Places) -> Result<Self, Fault> {
        let path = places.config_file();
        let fault = |message: &str| {
            let message = format!("{message} {}", path.display());
            Fault::new(Kind::Invalid, "E-CONFIG", message)
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(fault("cannot read").because(&error)),
        };
        let parsed = toml::from_str::<Self>(&text).map_err(|error| {
            let line = error
                .span()
                .map(|span| text[..span.start].matches('\n').count() + 1);
            let at = line.map_or(String::new(), |line| format!("line {line}: "));
            fault("cannot use").cause(format!("{at}{}", error.message()))
        })?;
        if parsed.image.as_ref().is_some_and(|path| path.is_relative()) {
            return Err(fault("cannot use").cause("image must be an absolute path"));
        }
        Ok(parsed)
    }

    /// Returns the VM that is meant when none is named.
    #[must_use]
    pub fn default_vm(&self) -> VmName {
        self.vm.clone().unwrap_or_else(VmName::termina)
    }

    /// Returns the container that is meant when none is named.
    #[must_use]
    pub fn default_container(&self) -> ContainerName {
        self.container
            .clone()
            .unwrap_or_else(ContainerName::penguin)
    }
}

/// Reads a size as people write it: a number, or text with a unit.
fn size<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    struct Size<T>(PhantomData<T>);
    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Size<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size such as \"4G\"")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
            number.to_string().parse().map_err(E::custom)
        }
    }
    deserializer
        .deserialize_any(Size(PhantomData))
        .map(Some)
        .map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, Fault> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().as_os_str().to_owned();
        let places = Places::from_variables(|_| Some(path.clone()), 0).unwrap();
        std::fs::create_dir_all(places.config_file().parent().unwrap()).unwrap();
        std::fs::write(places.config_file(), text).unwrap();
        Config::load(&places)
    }

    #[test]
    fn sizes_are_text_or_numbers() {
        let config = load("memory = \"2G\"\ndisk = 1048576\n").unwrap();
        assert_eq!(
            (config.memory, config.disk),
            (Some(Mib(2048)), Some(Bytes(1 << 20)))
        );
    }

    #[test]
    fn a_misspelt_key_is_refused_with_its_line() {
        let fault = load("cpus = 2\nmemroy = \"2G\"\n").unwrap_err();
        let cause = &fault.parts().causes[0];
        assert!(
            cause.starts_with("line 2: unknown field `memroy`"),
            "{cause}"
        );
    }

    #[test]
    fn engines_are_called_the_same_everywhere() {
        for choice in [EngineChoice::Auto, EngineChoice::Crosvm, EngineChoice::Qemu] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
            let config = load(&format!("engine = \"{choice}\"\n")).unwrap();
            assert_eq!(config.engine, choice);
        }
        assert!("bochs".parse::<EngineChoice>().is_err());
    }

    #[test]
    fn a_missing_file_sets_nothing() {
        let places = Places::from_variables(|_| Some("/nonexistent".into()), 0).unwrap();
        assert_eq!(Config::load(&places).unwrap(), Config::default());
    }
}
