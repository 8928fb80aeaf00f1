//! What carries the frames on the host: passt's stream socket or a TAP device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use thiserror::Error;
use virtio::Buffers;

use crate::header::Header;
use crate::stream::Stream;
use crate::tap::Tap;

/// The largest frame: 64 KiB of packet, which IP cannot exceed, after an Ethernet header with a VLAN tag.
pub(crate) const MAX_FRAME: usize = 65_535 + 18;

/// Why the cable is of no more use.
#[derive(Debug, Error)]
pub(crate) enum Cut {
    /// The other side has gone.
    #[error("the other side has closed the socket")]
    Closed,
    /// It announced a frame that cannot be.
    #[error("a frame of {0} bytes was announced")]
    Impossible(usize),
    /// The socket or device failed.
    #[error("the host's end failed: {0}")]
    Failed(io::Error),
}

/// What became of the guest's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// They were taken.
    Sent,
    /// The host's end is full.
    Full,
}

/// The cable.
#[derive(Debug)]
pub(crate) enum Cable {
    /// To passt.
    Stream(Stream),
    /// To the host's kernel.
    Tap(Tap),
}

impl Cable {
    /// Returns what to wait for.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(stream) => stream.socket().as_fd(),
            Self::Tap(tap) => tap.descriptor(),
        }
    }

    /// Takes the features that the guest has agreed to.
    pub(crate) fn negotiated(&mut self, features: u64) -> io::Result<()> {
        match self {
            Self::Stream(_) => Ok(()),
            Self::Tap(tap) => tap.negotiated(features),
        }
    }

    /// Returns the next frame for the guest that was read.
    pub(crate) fn frame(&self) -> Result<Option<(Header, &[u8])>, Cut> {
        match self {
            Self::Stream(stream) => stream.frame(),
            Self::Tap(tap) => Ok(tap.frame()),
        }
    }

    /// Forgets a frame of `length` bytes that [`Cable::frame`] returned.
    pub(crate) fn forget_frame(&mut self, length: usize) {
        match self {
            Self::Stream(stream) => stream.forget_frame(length),
            Self::Tap(tap) => tap.forget_frame(),
        }
    }

    /// Returns whether nothing more can be read before frames are forgotten.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.is_full(),
            Self::Tap(tap) => tap.frame().is_some(),
        }
    }

    /// Reads more if there is room; returns whether there was any.
    pub(crate) fn fill(&mut self) -> Result<bool, Cut> {
        match self {
            Self::Stream(stream) => stream.fill(),
            Self::Tap(tap) => tap.fill(),
        }
    }

    /// Takes a frame of the guest's, header first, if there is room for it.
    pub(crate) fn send(&mut self, request: &Buffers<'_>) -> Result<Outcome, Cut> {
        match self {
            Self::Stream(stream) => stream.send(request),
            Self::Tap(tap) => tap.send(request),
        }
    }

    /// Sends what was taken; returns whether the host's end has room for more.
    pub(crate) fn flush(&mut self) -> Result<Outcome, Cut> {
        match self {
            Self::Stream(stream) => stream.flush(),
            Self::Tap(_) => Ok(Outcome::Sent),
        }
    }
}
