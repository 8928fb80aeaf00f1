//! A front end and its guest driver in one: sets a device daemon up over vhost-user and uses its queues.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use rustix::fs::MemfdFlags;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::ring::DriverRing;

/// Memory that each ring has for its tables and buffers.
const RING_BYTES: u64 = 8 << 20;

/// Where guest memory begins: not at 0, so that an address taken for an offset is noticed.
const START: u64 = 0x10_0000;

/// `VHOST_USER_F_PROTOCOL_FEATURES`.
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// What the driver asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Queues to set up.
    pub queues: usize,
    /// Descriptors in each.
    pub size: u16,
    /// Features to accept of those offered.
    pub features: u64,
}

/// A guest with one device.
pub struct Driver {
    frontend: Frontend,
    /// The front end's socket once more, to see the daemon go.
    socket: UnixStream,
    features: u64,
    /// The record of what is in flight, which outlives a daemon.
    inflight: Option<(VhostUserInflight, File)>,
    memory: GuestMemoryMmap,
    /// Its queues.
    pub rings: Vec<DriverRing>,
}

impl Driver {
    /// Sets the device at the other end of `socket` up and starts its queues.
    ///
    /// Panics if the device refuses, as everything here does: it is for tests.
    #[must_use]
    pub fn new(socket: UnixStream, wishes: Wishes) -> Self {
        let watched = socket.try_clone().unwrap();
        let (frontend, offered) = greet(socket, wishes.queues);
        let features = offered & (wishes.features | PROTOCOL_FEATURES);
        frontend.set_features(features).unwrap();
        let bytes = RING_BYTES * wishes.queues as u64;
        let memfd = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memfd, bytes).unwrap();
        let file = File::from(memfd);
        let region = (
            GuestAddress(START),
            bytes as usize,
            Some(FileOffset::new(file, 0)),
        );
        let memory = GuestMemoryMmap::from_ranges_with_files([region]).unwrap();
        let rings = (0..wishes.queues as u64)
            .map(|index| {
                DriverRing::new(&memory, START + index * RING_BYTES, RING_BYTES, wishes.size)
            })
            .collect();
        let mut driver = Self {
            frontend,
            socket: watched,
            features,
            inflight: None,
            memory,
            rings,
        };
        driver.share_memory();
        for index in 0..wishes.queues {
            driver.start_ring(index, 0);
        }
        driver
    }

    /// Returns the features that both sides have.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Reads the configuration space.
    pub fn config(&mut self, bytes: u32) -> Vec<u8> {
        let room = vec![0; bytes as usize];
        let flags = VhostUserConfigFlags::empty();
        self.frontend.get_config(0, bytes, flags, &room).unwrap().1
    }

    /// Lets the device record what is in flight from now on.
    pub fn keep_in_flight(&mut self) {
        let wanted = VhostUserInflight {
            num_queues: u16::try_from(self.rings.len()).unwrap(),
            queue_size: self.rings[0].size,
            ..VhostUserInflight::default()
        };
        let bases: Vec<u32> = (0..self.rings.len())
            .map(|index| self.stop_ring(index))
            .collect();
        self.inflight = Some(self.frontend.get_inflight_fd(&wanted).unwrap());
        self.give_in_flight();
        for (index, base) in bases.into_iter().enumerate() {
            self.start_ring(index, u16::try_from(base).unwrap());
        }
    }

    /// Waits for the daemon to be gone and goes on with the one at the other end of `socket`.
    pub fn replace(&mut self, socket: UnixStream) {
        let mut rest = Vec::new();
        // A reset of the connection is an end too.
        let _end = self.socket.read_to_end(&mut rest);
        self.socket = socket.try_clone().unwrap();
        self.frontend = greet(socket, self.rings.len()).0;
        self.frontend.set_features(self.features).unwrap();
        self.share_memory();
        self.give_in_flight();
        for index in 0..self.rings.len() {
            let base = self.rings[index].returned();
            self.start_ring(index, base);
        }
    }

    fn give_in_flight(&mut self) {
        if let Some((described, file)) = &self.inflight {
            let given = self.frontend.set_inflight_fd(described, file.as_raw_fd());
            given.unwrap();
        }
    }

    /// Stops a queue; returns where the device would go on.
    pub fn stop_ring(&mut self, index: usize) -> u32 {
        self.frontend.get_vring_base(index).unwrap()
    }

    /// Starts a queue at `base`.
    pub fn start_ring(&mut self, index: usize, base: u16) {
        let ring = &mut self.rings[index];
        ring.kick = EventFd::new(EFD_NONBLOCK).unwrap();
        ring.call = EventFd::new(EFD_NONBLOCK).unwrap();
        ring.use_event_index(
            self.features & 1 << virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX != 0,
        );
        let host = |address| self.memory.get_host_address(GuestAddress(address)).unwrap() as u64;
        let config = VringConfigData {
            queue_max_size: ring.size,
            queue_size: ring.size,
            flags: 0,
            desc_table_addr: host(ring.table),
            used_ring_addr: host(ring.used),
            avail_ring_addr: host(ring.available),
            log_addr: None,
        };
        self.frontend.set_vring_num(index, ring.size).unwrap();
        self.frontend.set_vring_base(index, base).unwrap();
        self.frontend.set_vring_addr(index, &config).unwrap();
        self.frontend.set_vring_call(index, &ring.call).unwrap();
        self.frontend.set_vring_kick(index, &ring.kick).unwrap();
        self.frontend.set_vring_enable(index, true).unwrap();
    }

    fn share_memory(&self) {
        let regions: Vec<_> = self
            .memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).unwrap())
            .collect();
        self.frontend.set_mem_table(&regions).unwrap();
    }
}

/// Agrees on the protocol with the daemon at the other end of `socket`; returns what the device offers.
fn greet(socket: UnixStream, queues: usize) -> (Frontend, u64) {
    let mut frontend = Frontend::from_stream(socket, queues as u64);
    frontend.set_owner().unwrap();
    let offered = frontend.get_features().unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    let wanted = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD;
    frontend.set_protocol_features(protocol & wanted).unwrap();
    (frontend, offered)
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Driver on descriptor {}", self.frontend.as_raw_fd())
    }
}
