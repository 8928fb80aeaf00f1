//! The names and sizes that users type, each parsed once and a type of its own from there on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest name: it becomes a host name label (RFC 1035 §2.3.4).
pub(crate) const NAME_LENGTH_MAX: usize = 63;

/// Why a name was refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum NameError {
    /// Nothing was given.
    #[error("a {what} name cannot be empty")]
    Empty {
        /// What was being named.
        what: &'static str,
    },
    /// More than [`NAME_LENGTH_MAX`] characters.
    #[error("{what} name is {length} characters long; at most {NAME_LENGTH_MAX} are allowed")]
    Long {
        /// What was being named.
        what: &'static str,
        /// Characters given.
        length: usize,
    },
    /// A character outside the set, or in a place where it may not stand.
    #[error(
        "{what} name {name:?} is not allowed: use lower-case letters, digits and '-', starting with a letter and not ending in '-'"
    )]
    Shape {
        /// What was being named.
        what: &'static str,
        /// The name as given.
        name: String,
    },
}

fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    let length = name.chars().count();
    if length > NAME_LENGTH_MAX {
        return Err(NameError::Long { what, length });
    }
    let inside = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !inside || !name.as_bytes()[0].is_ascii_lowercase() || name.ends_with('-') {
        return Err(NameError::Shape {
            what,
            name: name.to_owned(),
        });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                check($what, name)?;
                Ok(Self(name.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                check($what, &name)?;
                Ok(Self(name))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A VM's name; the default one is `termina`.
    VmName,
    "VM"
);
name!(
    /// A container's name; the default one is `penguin`. It is also the container's host name.
    ContainerName,
    "container"
);
name!(
    /// A snapshot's name.
    SnapshotName,
    "snapshot"
);

impl VmName {
    /// Returns the VM that is meant when none is named.
    #[must_use]
    pub fn termina() -> Self {
        Self("termina".to_owned())
    }
}

impl ContainerName {
    /// Returns the container that is meant when none is named.
    #[must_use]
    pub fn penguin() -> Self {
        Self("penguin".to_owned())
    }
}

/// Why a size was refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SizeError {
    /// Neither a number nor a number with a unit.
    #[error("{given:?} is not a size: write a number with an optional K, M, G or T, such as 20G")]
    Shape {
        /// The size as given.
        given: String,
    },
    /// Larger than 2⁶⁴ − 1 bytes.
    #[error("{given:?} is larger than any disk")]
    Large {
        /// The size as given.
        given: String,
    },
}

/// An amount of bytes. Text form: a number with an optional binary unit (`20G` = 20 × 2³⁰).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = SizeError;

    fn from_str(given: &str) -> Result<Self, SizeError> {
        let shape = || SizeError::Shape {
            given: given.to_owned(),
        };
        let digits = given.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = given.split_at(digits);
        if number.is_empty() {
            return Err(shape());
        }
        let unit = unit.to_ascii_lowercase();
        let shift = match unit
            .strip_suffix("ib")
            .or_else(|| unit.strip_suffix('b'))
            .unwrap_or(&unit)
        {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(shape()),
        };
        let large = || SizeError::Large {
            given: given.to_owned(),
        };
        let number: u64 = number.parse().map_err(|_| large())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(large)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [
            (1 << 40, "T"),
            (1 << 30, "G"),
            (1 << 20, "M"),
            (1 << 10, "K"),
        ];
        for (size, unit) in UNITS {
            if self.0 >= size {
                let tenths = u128::from(self.0) * 10 / u128::from(size);
                return if tenths % 10 == 0 || tenths >= 1000 {
                    write!(f, "{}{unit}", tenths / 10)
                } else {
                    write!(f, "{}.{}{unit}", tenths / 10, tenths % 10)
                };
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// An amount of memory in MiB. Text form: as [`Bytes`], but a bare number is MiB already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mib(pub u32);

impl FromStr for Mib {
    type Err = SizeError;

    fn from_str(given: &str) -> Result<Self, SizeError> {
        let large = || SizeError::Large {
            given: given.to_owned(),
        };
        if !given.is_empty() && given.bytes().all(|b| b.is_ascii_digit()) {
            return given.parse().map(Self).map_err(|_| large());
        }
        u32::try_from(given.parse::<Bytes>()?.0 >> 20)
            .map(Self)
            .map_err(|_| large())
    }
}

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Bytes(u64::from(self.0) << 20).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "penguin", "dev-2", &"x".repeat(63)] {
            assert_eq!(good.parse::<ContainerName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "1a",
            "a_b",
            "a/b",
            "..",
            "a.b",
            "ä",
            "a\n",
            &"x".repeat(64),
        ] {
            assert!(
                bad.parse::<ContainerName>().is_err(),
                "{bad:?} was accepted"
            );
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!("20G".parse::<Bytes>(), Ok(Bytes(20 << 30)));
        assert_eq!("512".parse::<Bytes>(), Ok(Bytes(512)));
        assert_eq!("1KiB".parse::<Bytes>(), Ok(Bytes(1024)));
        assert_eq!("4g".parse::<Mib>(), Ok(Mib(4096)));
        assert_eq!("768".parse::<Mib>(), Ok(Mib(768)));
        for bad in ["", "G", "1.5G", "-1", "1X", "99999999999T", "1 G"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn sizes_print_with_one_decimal_at_most() {
        assert_eq!(Bytes(20 << 30).to_string(), "20G");
        assert_eq!(Bytes(1_610_612_736).to_string(), "1.5G");
        assert_eq!(Bytes(900).to_string(), "900B");
        assert_eq!(Mib(2048).to_string(), "2G");
    }
}
