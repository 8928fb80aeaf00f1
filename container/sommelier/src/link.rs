//! Opens the way from the container to the host end: one connection for each Wayland client.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;
use vsock::{VMADDR_CID_HOST, VsockStream};

/// Where the host end listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// This port of the host: `vsock:7781`.
    Vsock(u32),
    /// A unix socket that carries bytes only, as a hybrid vsock does: `unix:/path`.
    Stream(PathBuf),
    /// A unix socket on which descriptors pass: `direct:/path`.
    Direct(PathBuf),
}

/// An address that is not one of the three forms.
#[derive(Debug, Error)]
#[error("{0} is not vsock:PORT, unix:PATH or direct:PATH")]
pub(crate) struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError(text.to_owned());
        match text.split_once(':').ok_or_else(bad)? {
            ("vsock", port) => port.parse().map(Self::Vsock).map_err(|_| bad()),
            ("unix", path) => Ok(Self::Stream(path.into())),
            ("direct", path) => Ok(Self::Direct(path.into())),
            _ => Err(bad()),
        }
    }
}

impl Address {
    /// Connects to the host end.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(crate) fn connect(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Vsock(port) => {
                VsockStream::connect_with_cid_port(VMADDR_CID_HOST, *port).map(OwnedFd::from)
            }
            Self::Stream(path) | Self::Direct(path) => UnixStream::connect(path).map(OwnedFd::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_strictly() {
        assert_eq!(
            "vsock:7781".parse::<Address>().unwrap(),
            Address::Vsock(7781)
        );
        assert_eq!(
            "unix:/a:b".parse::<Address>().unwrap(),
            Address::Stream("/a:b".into())
        );
        for bad in ["7781", "vsock:", "vsock:-1", "tcp:1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
