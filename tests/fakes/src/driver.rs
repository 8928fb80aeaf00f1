//! A front end and its guest driver in one: sets a device daemon up over vhost-user and uses its queues.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use rustix::fs::MemfdFlags;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures};
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
    features: u64,
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
        let mut frontend = Frontend::from_stream(socket, wishes.queues as u64);
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        let features = offered & (wishes.features | PROTOCOL_FEATURES);
        let protocol = frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG;
        frontend.set_protocol_features(protocol & wanted).unwrap();
        frontend.set_features(features).unwrap();
        let bytes = RING_BYTES * wishes.queues as u64;
        let memfd = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memfd, bytes).unwrap();
        let file = std::fs::File::from(memfd);
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
            features,
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

impl std::fmt::Debug for Driver {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Driver on descriptor {}", self.frontend.as_raw_fd())
    }
}
