//! Answers the front end's vhost-user messages by setting up memory and rings, in the daemon.
//!
//! `vhost` parses and checks each message and calls the method of its name; what is asked here without having been
//! offered is an error, and an error ends the daemon, because a front end that breaks the protocol cannot be served.

use std::fs::File;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::device::{Device, Guest};
use crate::inflight::Inflight;
use crate::memory::{MAX_REGIONS, Memory, MemoryError, Place};
use crate::poll::{Poll, Ready};
use crate::ring::{MAX_RING, Ring};

/// What the rings can do, whatever the device.
const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// The token of the first ring's kick; the others follow.
pub(crate) const FIRST_KICK: u64 = Guest::TOKENS;

/// The largest configuration space a front end may ask for (vhost-user: `VHOST_USER_MAX_CONFIG_SIZE`).
const MAX_CONFIG: usize = 256;

/// A device, its rings and its guest.
#[derive(Debug)]
pub(crate) struct Carrier<D> {
    device: D,
    memory: Memory,
    rings: Vec<Ring>,
    poll: Poll,
    /// Where each ring that the front end stopped would go on.
    bases: Vec<Option<u16>>,
    features: u64,
    /// Memory for a record of what is in flight, which the front end may ask for.
    inflight_file: File,
    /// The record, once the front end has given it back.
    inflight: Option<Inflight>,
    /// The device has work that it put off.
    put_off: bool,
}

impl<D: Device> Carrier<D> {
    pub(crate) fn new(mut device: D, poll: Poll) -> std::io::Result<Self> {
        device.start(&poll)?;
        let count = device.queues();
        let rings = (0..count).map(|_| Ring::new()).collect();
        let bases = vec![None; count];
        let memory = Memory::default();
        Ok(Self {
            device,
            memory,
            rings,
            poll,
            bases,
            features: 0,
            inflight_file: Inflight::make(count)?,
            inflight: None,
            put_off: false,
        })
    }

    pub(crate) fn poll(&self) -> &Poll {
        &self.poll
    }

    /// Passes news on: a kick, or something of the device's own.
    pub(crate) fn ready(&mut self, news: Ready) {
        match news.token.checked_sub(FIRST_KICK).map(usize::try_from) {
            Some(Ok(queue)) => self.kicked(queue),
            Some(Err(_)) => {}
            None => {
                let (device, mut guest) = self.parts();
                device.ready(news, &mut guest);
            }
        }
    }

    fn kicked(&mut self, queue: usize) {
        if self.rings.get(queue).is_some_and(Ring::is_running) {
            let (device, mut guest) = self.parts();
            device.kicked(queue, &mut guest);
        }
    }

    /// Returns whether the front end has set features.
    pub(crate) fn has_features(&self) -> bool {
        self.features != 0
    }

    /// Returns whether the device has put work off.
    pub(crate) fn is_busy(&self) -> bool {
        self.put_off
    }

    /// Lets the device go on with what it put off.
    pub(crate) fn resume(&mut self) {
        if std::mem::take(&mut self.put_off) {
            let (device, mut guest) = self.parts();
            device.resumed(&mut guest);
        }
    }

    fn parts(&mut self) -> (&mut D, Guest<'_>) {
        let Self {
            device,
            memory,
            rings,
            poll,
            put_off,
            ..
        } = self;
        (
            device,
            Guest {
                memory,
                poll,
                rings,
                put_off,
            },
        )
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.rings.get_mut(index))
            .ok_or(Error::InvalidParam)
    }

    /// Starts a ring whose kick has come, which is always the last thing a front end sets.
    fn start(&mut self, index: u8) -> Result<()> {
        let queue = usize::from(index);
        let event_index = self.features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let ring = self.rings.get_mut(queue).ok_or(Error::InvalidParam)?;
        let record = self.inflight.as_ref();
        ring.set_record(record.and_then(|inflight| inflight.record(queue)));
        ring.set_event_index(event_index);
        if !ring.start(&self.memory) {
            return Err(Error::InvalidOperation(
                "the ring lies outside of guest memory",
            ));
        }
        // A driver that was paused goes on where it was stopped; one that starts afresh begins at 0.
        let base = ring.base();
        let stopped_at = self.bases.get_mut(queue).and_then(Option::take);
        if stopped_at.is_some_and(|stopped_at| stopped_at != base) {
            let (device, mut guest) = self.parts();
            device.stopped(queue, true, &mut guest);
        }
        self.kicked(queue);
        Ok(())
    }

    /// Lets the device finish, stops a ring and returns where it stopped.
    fn stop(&mut self, index: u32) -> Result<u16> {
        let queue = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        if self
            .rings
            .get(queue)
            .ok_or(Error::InvalidParam)?
            .is_started()
        {
            let (device, mut guest) = self.parts();
            device.stopped(queue, false, &mut guest);
        }
        let ring = self.ring(index)?;
        ring.stop();
        let base = ring.base();
        if let Some(kick) = ring.set_kick(None) {
            self.poll.remove(&kick).map_err(Error::ReqHandlerError)?;
        }
        if let Some(slot) = self.bases.get_mut(queue) {
            *slot = Some(base);
        }
        Ok(base)
    }

    /// Stops every ring and lets the device forget its driver.
    fn reset(&mut self) -> Result<()> {
        for index in 0..self.rings.len() {
            self.stop(u32::try_from(index).map_err(|_| Error::InvalidParam)?)?;
            let (device, mut guest) = self.parts();
            device.stopped(index, true, &mut guest);
        }
        self.rings
            .iter_mut()
            .for_each(|ring| ring.set_enabled(false));
        self.features = 0;
        self.inflight = None;
        Ok(())
    }
}

impl<D: Device> VhostUserBackendReqHandlerMut for Carrier<D> {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset()
    }

    fn get_features(&mut self) -> Result<u64> {
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        Ok(self.device.features() | TRANSPORT_FEATURES | protocol)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.get_features()? != 0 {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        self.device.negotiated(features);
        // Without protocol features there is no message to enable a ring.
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            self.rings
                .iter_mut()
                .for_each(|ring| ring.set_enabled(true));
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        table: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let places = table.iter().map(|region| Place {
            guest: region.guest_phys_addr,
            user: region.user_addr,
            bytes: region.memory_size,
            offset: region.mmap_offset,
        });
        self.memory = Memory::new(places.zip(files).collect()).map_err(failed)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.ring(index)?
            .set_size(num)
            .then_some(())
            .ok_or(Error::InvalidParam)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let translate = |user| self.memory.guest_address(user).ok_or(Error::InvalidParam);
        let (descriptor, available) = (translate(descriptor)?, translate(available)?);
        let used = translate(used)?;
        let ring = self.ring(index)?;
        ring.set_addresses(descriptor, available, used)
            .then_some(())
            .ok_or(Error::InvalidParam)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.ring(index)?.set_base(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let base = self.stop(index)?;
        Ok(VhostUserVringState::new(index, u32::from(base)))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        // Without a kick the front end asks for polling, which would burn a core.
        let kick = fd.ok_or(Error::InvalidOperation("a ring without kick"))?;
        let poll = self.poll.add_kick(&kick, FIRST_KICK | u64::from(index));
        poll.map_err(Error::ReqHandlerError)?;
        if let Some(old) = self.ring(u32::from(index))?.set_kick(Some(kick)) {
            self.poll.remove(&old).map_err(Error::ReqHandlerError)?;
        }
        self.start(index)
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.ring(u32::from(index))?.set_call(fd);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.ring(u32::from(index))?.set_error(fd);
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let offered = self.get_protocol_features()?.bits();
        if features & !offered == 0 {
            Ok(())
        } else {
            Err(Error::InvalidParam)
        }
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.rings.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let ring = self.ring(index)?;
        ring.set_enabled(enable);
        if enable && ring.is_started() {
            self.kicked(usize::try_from(index).map_err(|_| Error::InvalidParam)?);
        }
        Ok(())
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        let start = usize::try_from(offset).map_err(|_| Error::InvalidParam)?;
        let size = usize::try_from(size).map_err(|_| Error::InvalidParam)?;
        if start.saturating_add(size) > MAX_CONFIG {
            return Err(Error::InvalidParam);
        }
        // A front end that knows more fields than the device reads them as zero.
        let known = self.device.config().get(start..).unwrap_or_default();
        Ok(known
            .iter()
            .copied()
            .chain(std::iter::repeat(0))
            .take(size)
            .collect())
    }

    fn set_config(
        &mut self,
        _offset: u32,
        _data: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> Result<()> {
        // No device here has a field that the driver may write; a guest that tries changes nothing.
        crate::limited!(warn, "the driver wrote to a read-only configuration space");
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        self.memory.add(place(region), &file).map_err(failed)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        self.memory.remove(region.guest_phys_addr).map_err(failed)
    }

    fn set_gpu_socket(&mut self, _socket: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("not a gpu"))
    }

    fn get_shared_object(&mut self, _object: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("no shared objects"))
    }

    fn get_inflight_fd(&mut self, wanted: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let (queues, size) = (wanted.num_queues, wanted.queue_size);
        if usize::from(queues) > self.rings.len() || size > MAX_RING {
            return Err(Error::InvalidParam);
        }
        let described = Inflight::clear(&self.inflight_file, queues, size).map_err(failed)?;
        let file = self.inflight_file.try_clone();
        Ok((described, file.map_err(Error::ReqHandlerError)?))
    }

    fn set_inflight_fd(&mut self, described: &VhostUserInflight, file: File) -> Result<()> {
        self.inflight = Some(Inflight::map(described, &file).map_err(failed)?);
        Ok(())
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidOperation("no device state"))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("no device state"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidOperation("no shared memory"))
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        Err(Error::InvalidOperation("no migration log"))
    }
}

fn place(region: &VhostUserSingleMemoryRegion) -> Place {
    Place {
        guest: region.guest_phys_addr,
        user: region.user_addr,
        bytes: region.memory_size,
        offset: region.mmap_offset,
    }
}

fn failed(error: MemoryError) -> Error {
    Error::ReqHandlerError(std::io::Error::other(error))
}
