//! A guest's vsock driver, packet by packet, for the tests beside it.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use device_vsock::Vsock;
use fakes::driver::{Driver, Wishes};
use fakes::ring::Piece;
use tempfile::TempDir;
use virtio::ServeError;

pub(crate) const REQUEST: u16 = 1;
pub(crate) const RESPONSE: u16 = 2;
pub(crate) const RESET: u16 = 3;
pub(crate) const SHUTDOWN: u16 = 4;
pub(crate) const DATA: u16 = 5;
pub(crate) const CREDIT_UPDATE: u16 = 6;
pub(crate) const CREDIT_REQUEST: u16 = 7;

pub(crate) const CID: u64 = 3;
const RING: u16 = 64;
const BUFFER: u32 = 4096;

/// A packet as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) guest_port: u32,
    pub(crate) host_port: u32,
    pub(crate) operation: u16,
    pub(crate) flags: u32,
    pub(crate) allocated: u32,
    pub(crate) forwarded: u32,
    pub(crate) data: Vec<u8>,
}

impl Packet {
    pub(crate) fn new(guest_port: u32, host_port: u32, operation: u16) -> Self {
        let data = Vec::new();
        Self {
            guest_port,
            host_port,
            operation,
            flags: 0,
            allocated: 1 << 20,
            forwarded: 0,
            data,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(CID.to_le_bytes());
        out.extend(2_u64.to_le_bytes());
        out.extend(self.guest_port.to_le_bytes());
        out.extend(self.host_port.to_le_bytes());
        out.extend(u32::try_from(self.data.len()).unwrap().to_le_bytes());
        out.extend(1_u16.to_le_bytes());
        out.extend(self.operation.to_le_bytes());
        out.extend(self.flags.to_le_bytes());
        out.extend(self.allocated.to_le_bytes());
        out.extend(self.forwarded.to_le_bytes());
        out.extend(&self.data);
        out
    }

    fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(
            bytes[..8],
            2_u64.to_le_bytes(),
            "packets come from the host"
        );
        assert_eq!(
            bytes[8..16],
            CID.to_le_bytes(),
            "packets are for this guest"
        );
        assert_eq!(
            word(24) as usize,
            bytes.len() - 44,
            "the length is that of the data"
        );
        Self {
            host_port: word(16),
            guest_port: word(20),
            operation: u16::from_le_bytes([bytes[30], bytes[31]]),
            flags: word(32),
            allocated: word(36),
            forwarded: word(40),
            data: bytes[44..].to_vec(),
        }
    }
}

/// A guest with a vsock device, and the directory of its host side.
pub(crate) struct Guest {
    pub(crate) driver: Driver,
    pub(crate) directory: TempDir,
    pub(crate) daemon: JoinHandle<Result<(), ServeError>>,
    buffers: Vec<Option<Piece>>,
    spare: u64,
}

impl Guest {
    /// A guest that has given the device `buffers` buffers of 4 KiB.
    pub(crate) fn new(buffers: usize) -> Self {
        let directory = TempDir::new().unwrap();
        let listener = UnixListener::bind(directory.path().join("vsock.sock")).unwrap();
        let device = Vsock::new(CID as u32, listener, directory.path().to_owned()).unwrap();
        let (front, back) = UnixStream::pair().unwrap();
        let daemon = thread::spawn(move || virtio::serve(back, device));
        let wishes = Wishes {
            queues: 3,
            size: RING,
            features: u64::MAX,
        };
        let mut driver = Driver::new(front, wishes);
        let spare = driver.rings[1].allocate(70_000);
        let mut guest = Self {
            driver,
            directory,
            daemon,
            buffers: vec![None; usize::from(RING)],
            spare,
        };
        for _ in 0..buffers {
            let room = guest.driver.rings[0].room(BUFFER);
            guest.give(room);
        }
        guest
    }

    /// Gives the device one buffer.
    pub(crate) fn give(&mut self, room: Piece) {
        let ring = &mut self.driver.rings[0];
        let head = ring.offer(&[room]).unwrap();
        self.buffers[usize::from(head)] = Some(room);
        ring.kick();
    }

    /// Sends a packet, and waits until the device has taken it.
    pub(crate) fn send(&mut self, packet: &Packet) {
        self.send_raw(&packet.bytes());
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        let ring = &mut self.driver.rings[1];
        ring.write(self.spare, bytes);
        let length = u32::try_from(bytes.len()).unwrap();
        ring.offer(&[Piece {
            address: self.spare,
            length,
            writable: false,
        }])
        .unwrap();
        ring.kick();
        ring.wait();
    }

    /// Waits for a packet and gives its buffer back.
    pub(crate) fn receive(&mut self) -> Packet {
        self.receive_within(Duration::from_secs(10))
            .expect("no packet came")
    }

    pub(crate) fn receive_within(&mut self, patience: Duration) -> Option<Packet> {
        let ring = &mut self.driver.rings[0];
        let (head, written) = ring.wait_for(patience)?;
        let room = self.buffers[usize::from(head)].take().unwrap();
        let packet = Packet::parse(&ring.read(room.address, written as usize));
        self.give(room);
        Some(packet)
    }

    /// Returns whether no packet comes for a while.
    pub(crate) fn hears_nothing(&mut self) -> bool {
        self.receive_within(Duration::from_millis(100)).is_none()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Opens a connection from guest port 1000 to host port 5; returns the host's end.
    pub(crate) fn connect_out(&mut self) -> UnixStream {
        let listener = UnixListener::bind(self.path("vsock.sock_5")).unwrap();
        self.send(&Packet::new(1000, 5, REQUEST));
        let answer = self.receive();
        assert_eq!(
            (answer.operation, answer.guest_port, answer.host_port),
            (RESPONSE, 1000, 5)
        );
        std::fs::remove_file(self.path("vsock.sock_5")).unwrap();
        listener.accept().unwrap().0
    }
}
