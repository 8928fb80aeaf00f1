//! Takes everything the specification names, once, before anything is built: after this, no number is looked at
//! again. Host side.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use spec::fd::InheritedFd;
use spec::vm::VmSpec;
use sys::inherited::{InheritError, Kind, take};
use thiserror::Error;

/// Why a descriptor cannot be used.
#[derive(Debug, Error)]
pub(crate) enum HandedError {
    #[error("cannot use {field}")]
    Inherit {
        field: String,
        #[source]
        source: InheritError,
    },
    #[error("cannot use a standard stream as the console")]
    Standard(#[source] io::Error),
}

/// What concierge opened for this machine.
pub(crate) struct Handed {
    /// The kernel image.
    pub(crate) kernel: File,
    /// The initial RAM file system.
    pub(crate) initramfs: Option<File>,
    /// The machine to go on with.
    pub(crate) snapshot: Option<File>,
    /// Where the console prints.
    pub(crate) output: Arc<File>,
    /// Where the console reads.
    pub(crate) input: Option<Arc<File>>,
    /// Where requests come from.
    pub(crate) control: UnixStream,
    /// The daemons, in the order of the specification's devices.
    pub(crate) sockets: Vec<UnixStream>,
}

impl Handed {
    /// Takes what `spec` names.
    ///
    /// # Errors
    /// The first descriptor that is not open or not what it should be.
    pub(crate) fn take(spec: &VmSpec) -> Result<Self, HandedError> {
        let console = &spec.console;
        let output = Arc::new(console_end(console.output, Kind::Sink, "console.output")?);
        let input = match console.input {
            None => None,
            Some(same) if same == console.output => Some(Arc::clone(&output)),
            Some(fd) => Some(Arc::new(console_end(fd, Kind::Source, "console.input")?)),
        };
        let socket = |device: &spec::vm::Device| {
            let field = format!("the socket of device {}", device.name);
            inherit(device.socket, Kind::Connected, &field).map(UnixStream::from)
        };
        let readable = |fd: Option<InheritedFd>, field| {
            let file = fd.map(|fd| inherit(fd, Kind::Readable, field)).transpose();
            file.map(|file| file.map(File::from))
        };
        Ok(Self {
            kernel: inherit(spec.kernel.image, Kind::Readable, "kernel.image")?.into(),
            initramfs: readable(spec.kernel.initramfs, "kernel.initramfs")?,
            snapshot: readable(spec.snapshot, "snapshot")?,
            output,
            input,
            control: inherit(spec.control, Kind::Connected, "control")?.into(),
            sockets: spec.devices.iter().map(socket).collect::<Result<_, _>>()?,
        })
    }
}

fn inherit(fd: InheritedFd, kind: Kind, field: &str) -> Result<OwnedFd, HandedError> {
    take(fd.0, kind).map_err(|source| HandedError::Inherit {
        field: field.to_owned(),
        source,
    })
}

/// The console may be a standard stream, which stays where it is: what is used is a duplicate.
fn console_end(fd: InheritedFd, kind: Kind, field: &str) -> Result<File, HandedError> {
    let duplicate = match fd.0 {
        0 => rustix::io::dup(rustix::stdio::stdin()),
        1 => rustix::io::dup(rustix::stdio::stdout()),
        2 => rustix::io::dup(rustix::stdio::stderr()),
        _ => return inherit(fd, kind, field).map(File::from),
    };
    duplicate
        .map(File::from)
        .map_err(|error| HandedError::Standard(error.into()))
}
