//! The host's end of the cable: a TAP device that somebody with the right to make one has handed over.
//!
//! Each read and write is one frame behind its virtio header, so checksums and the cutting of large segments are the
//! host kernel's. What the guest may reach is the business of who made the device: nothing is judged here.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::OFlags;
use virtio::{Buffers, limited, write_some};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
};

use crate::cable::{Cut, MAX_FRAME, Outcome};
use crate::header::{HEADER, Header};
use crate::offload;

/// A TAP device.
#[derive(Debug)]
pub(crate) struct Tap {
    file: File,
    inbox: Box<[u8]>,
    /// Bytes of the frame in the inbox with its header; 0 when there is none.
    unread: usize,
}

impl Tap {
    /// Takes the device, which must carry Ethernet frames with virtio headers (`IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`).
    pub(crate) fn new(file: File) -> io::Result<Self> {
        offload::check(&file)?;
        offload::set_header_bytes(&file, HEADER)?;
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK)?;
        Ok(Self {
            file,
            inbox: vec![0; HEADER.saturating_add(MAX_FRAME)].into_boxed_slice(),
            unread: 0,
        })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Tells the host's kernel what the guest can take.
    pub(crate) fn negotiated(&mut self, features: u64) -> io::Result<()> {
        let has = |bit: u32| features & 1 << bit != 0;
        offload::set(
            &self.file,
            has(VIRTIO_NET_F_GUEST_CSUM),
            has(VIRTIO_NET_F_GUEST_TSO4),
            has(VIRTIO_NET_F_GUEST_TSO6),
        )
    }

    pub(crate) fn frame(&self) -> Option<(Header, &[u8])> {
        let whole = self.inbox.get(..self.unread)?;
        let (header, frame) = whole.split_first_chunk::<HEADER>()?;
        Some((Header(*header), frame))
    }

    pub(crate) fn forget_frame(&mut self) {
        self.unread = 0;
    }

    pub(crate) fn fill(&mut self) -> Result<bool, Cut> {
        match self.file.read(&mut self.inbox) {
            Ok(0) => Err(Cut::Closed),
            Ok(count) => {
                self.unread = count;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(Cut::Failed(error)),
        }
    }

    /// Writes a frame. What the kernel refuses, it refuses for what the frame says, or because the device is down:
    /// such a frame is lost, as on any cable.
    pub(crate) fn send(&mut self, request: &Buffers<'_>) -> Result<Outcome, Cut> {
        match write_some(&self.file, request.slices()) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Outcome::Full),
            Err(error) => limited!(warn, "the host's TAP device refused a frame: {error}"),
        }
        Ok(Outcome::Sent)
    }
}
