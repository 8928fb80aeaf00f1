//! One device daemon as data: what concierge writes and `crosvm device <kind>` reads, on the host.
//!
//! The daemon opens nothing. Every file and socket it may use is named here by the number under which
//! concierge left it open, and whatever the message does not name is closed before the device runs.

use std::collections::BTreeSet;
use std::io::Read;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::fd::InheritedFd;

/// The largest message accepted: a real one is below 1 KiB, and the reader must end.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The longest block device identifier (virtio 1.3 §5.2.6, `VIRTIO_BLK_T_GET_ID`).
pub const MAX_SERIAL_BYTES: usize = 20;

/// The most request queues of one disk: one for each virtual CPU of the largest machine.
pub const MAX_BLOCK_QUEUES: u16 = 64;

/// The most images below a disk's own: people have two or three, and each costs a read more.
pub const MAX_BACKING: usize = 8;

/// The first context identifier a guest may have (virtio 1.3 §5.10.4: 0, 1 and 2 are reserved).
pub const FIRST_GUEST_CID: u32 = 3;

/// The smallest MTU that still carries IPv6 (RFC 8200 §5).
pub const MIN_MTU: u16 = 1280;

/// The message that starts a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceMessage {
    /// Where the front end is.
    pub vhost: VhostSocket,
    /// What the daemon is.
    pub device: DeviceSpec,
}

/// The socket on which the front end (the engine) speaks vhost-user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VhostSocket {
    /// One end of a connected pair.
    Connected(InheritedFd),
    /// A listening socket; the first connection is served and the socket closed.
    Listening(InheritedFd),
}

/// What kind of device, and what it works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceSpec {
    /// Random numbers from the host's pool.
    Rng,
    /// Streams between guest and host processes.
    Vsock(VsockSpec),
    /// A disk.
    Block(BlockSpec),
    /// A network card.
    Net(NetSpec),
}

impl DeviceSpec {
    /// Returns the word that follows `crosvm device`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Rng => "rng",
            Self::Vsock(_) => "vsock",
            Self::Block(_) => "block",
            Self::Net(_) => "net",
        }
    }

    /// Returns every descriptor the device itself works on.
    fn descriptors(&self) -> Vec<InheritedFd> {
        match self {
            Self::Rng => Vec::new(),
            Self::Vsock(vsock) => vec![vsock.listener, vsock.directory],
            Self::Block(block) => {
                let below = block.backing.iter().map(|layer| layer.image);
                std::iter::once(block.image).chain(below).collect()
            }
            Self::Net(net) => match net.backend {
                NetBackend::Stream(fd) | NetBackend::Tap(fd) => vec![fd],
            },
        }
    }
}

/// A vsock device whose host side is a directory of Unix sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockSpec {
    /// The listening `vsock.sock`, on which host processes ask for a guest port.
    pub listener: InheritedFd,
    /// The directory in which the guest's connections look for `vsock.sock_PORT`.
    pub directory: InheritedFd,
    /// The guest's context identifier, 3 or more.
    pub guest_cid: u32,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockSpec {
    /// The image, open for reading, and for writing unless `read_only`.
    pub image: InheritedFd,
    /// How the image is laid out.
    #[serde(default)]
    pub format: BlockFormat,
    /// The images that it lies upon, the nearest first, if it is qcow2.
    #[serde(default)]
    pub backing: Vec<BackingSpec>,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
    /// What the guest finds as the disk's serial number, at most 20 bytes of printable ASCII.
    #[serde(default)]
    pub serial: String,
    /// Request queues, 1 or more.
    #[serde(default = "one_queue")]
    pub queues: u16,
}

/// An image that another lies upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackingSpec {
    /// The image, open for reading.
    pub image: InheritedFd,
    /// How the image is laid out.
    #[serde(default)]
    pub format: BlockFormat,
}

/// How a disk image is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockFormat {
    /// The bytes of the disk, with holes where nothing was written.
    #[default]
    Raw,
    /// QEMU's format: clusters found through tables, which may lie upon another image.
    Qcow2,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetSpec {
    /// What carries the frames on the host.
    pub backend: NetBackend,
    /// The card's address, as six colon-separated hexadecimal bytes.
    pub mac: MacAddress,
    /// The largest packet in bytes without its Ethernet header; the guest's own choice when absent.
    #[serde(default)]
    pub mtu: Option<u16>,
}

/// What carries a network card's frames on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetBackend {
    /// A connected Unix stream socket to passt: each frame after its length as a big-endian `u32`.
    Stream(InheritedFd),
    /// A TAP device that carries Ethernet frames with virtio headers (`IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`).
    Tap(InheritedFd),
}

/// An Ethernet address of one station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl TryFrom<String> for MacAddress {
    type Error = MessageError;

    fn try_from(text: String) -> Result<Self, MessageError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let digits =
                |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            let part = parts.next().filter(digits);
            let parsed = part.and_then(|part| u8::from_str_radix(part, 16).ok());
            *byte = parsed.ok_or_else(|| MessageError::Mac(text.clone()))?;
        }
        // The lowest bit of the first byte marks a group address, which no card can have.
        if parts.next().is_some() || bytes[0] & 1 != 0 {
            return Err(MessageError::Mac(text));
        }
        Ok(Self(bytes))
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.0.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// Why a daemon's message was refused.
#[derive(Debug, Error)]
pub enum MessageError {
    /// The descriptor gave no bytes.
    #[error("cannot read the device specification")]
    Read(#[source] std::io::Error),
    /// More bytes than [`MAX_MESSAGE_BYTES`].
    #[error("the device specification is longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    /// Not JSON, or fields that do not exist, are missing, or have the wrong type.
    #[error("cannot understand the device specification")]
    Parse(#[source] serde_json::Error),
    /// One descriptor under two names.
    #[error("descriptor {0} is named twice")]
    NamedTwice(InheritedFd),
    /// A number below 3.
    #[error("guest CID {0} is reserved")]
    ReservedCid(u32),
    /// Not an address of one station.
    #[error("{0:?} is not a unicast Ethernet address")]
    Mac(String),
    /// Below the protocol's minimum.
    #[error("MTU {0} is below {MIN_MTU}")]
    Mtu(u16),
    /// Zero or too many.
    #[error("a disk cannot have {0} queues: 1 to {MAX_BLOCK_QUEUES}")]
    Queues(u16),
    /// More than [`MAX_BACKING`], or below an image that cannot lie upon another.
    #[error(
        "a disk cannot have {0} images below: a qcow2 image 0 to {MAX_BACKING}, a raw image none"
    )]
    Backing(usize),
    /// Too long or not printable.
    #[error("serial {0:?} is not 0 to {MAX_SERIAL_BYTES} printable ASCII characters")]
    Serial(String),
}

impl DeviceMessage {
    /// Reads a message up to the end of `source` and checks it.
    ///
    /// # Errors
    /// The bytes cannot be read, are too many, are not a message, or contradict each other.
    pub fn read(source: impl Read) -> Result<Self, MessageError> {
        let mut bytes = Vec::new();
        let limit = MAX_MESSAGE_BYTES as u64 + 1;
        source
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(MessageError::Read)?;
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLong);
        }
        let message: Self = serde_json::from_slice(&bytes).map_err(MessageError::Parse)?;
        message.check()?;
        Ok(message)
    }

    /// Checks what the types do not hold: ranges, and that no descriptor has two duties.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), MessageError> {
        let mut seen = BTreeSet::new();
        for fd in self.descriptors() {
            if !seen.insert(fd) {
                return Err(MessageError::NamedTwice(fd));
            }
        }
        match &self.device {
            DeviceSpec::Rng => Ok(()),
            DeviceSpec::Vsock(vsock) => vsock.check(),
            DeviceSpec::Block(block) => block.check(),
            DeviceSpec::Net(net) => net.check(),
        }
    }

    /// Returns every descriptor the message names.
    #[must_use]
    pub fn descriptors(&self) -> Vec<InheritedFd> {
        let (VhostSocket::Connected(socket) | VhostSocket::Listening(socket)) = self.vhost;
        let mut all = vec![socket];
        all.extend(self.device.descriptors());
        all
    }
}

impl VsockSpec {
    fn check(&self) -> Result<(), MessageError> {
        if (FIRST_GUEST_CID..u32::MAX).contains(&self.guest_cid) {
            Ok(())
        } else {
            Err(MessageError::ReservedCid(self.guest_cid))
        }
    }
}

impl BlockSpec {
    fn check(&self) -> Result<(), MessageError> {
        if !(1..=MAX_BLOCK_QUEUES).contains(&self.queues) {
            return Err(MessageError::Queues(self.queues));
        }
        let most = match self.format {
            BlockFormat::Raw => 0,
            BlockFormat::Qcow2 => MAX_BACKING,
        };
        if self.backing.len() > most {
            return Err(MessageError::Backing(self.backing.len()));
        }
        let printable = self
            .serial
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if self.serial.len() > MAX_SERIAL_BYTES || !printable {
            return Err(MessageError::Serial(self.serial.clone()));
        }
        Ok(())
    }
}

impl NetSpec {
    fn check(&self) -> Result<(), MessageError> {
        match self.mtu {
            Some(mtu) if mtu < MIN_MTU => Err(MessageError::Mtu(mtu)),
            _ => Ok(()),
        }
    }
}

fn one_queue() -> u16 {
    1
}

#[cfg(test)]
mod tests;
