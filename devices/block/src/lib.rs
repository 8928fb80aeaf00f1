//! The disk (virtio 1.3 §5.2): the guest's sectors in a raw sparse file or a qcow2 image, in its daemon.
//!
//! Bytes go straight between the image and guest memory. Writes are done one after the other: with the host's page cache
//! behind them they seldom wait. Reads that came together wait together, by io_uring where the kernel has it. What the
//! guest frees becomes a hole in the file.

mod image;
mod jail;
mod qcow2;
mod raw;
mod request;
mod uring;

use std::fs::File;
use std::io;

use virtio::{Device, Guest, Poll};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ,
    VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};

use self::image::Image;
pub use self::jail::policy;
use self::qcow2::Qcow2;
use self::raw::Raw;
use self::request::{MAX_RANGE_SECTORS, MAX_RANGES, Reads, SECTOR, SERIAL};

/// Bytes of the configuration space up to `write_zeroes_may_unmap` and its padding (virtio 1.3 §5.2.4).
const CONFIG: usize = 60;

/// The most pieces of data in one request: a chain is not longer than a ring, and two descriptors are the header's
/// and the status's. Linux splits larger requests.
const MAX_SEGMENTS: u32 = 126;

/// Sectors to which a discard should be aligned: a block of the host's file systems, below which no space comes back.
const DISCARD_SECTORS: u32 = 8;

/// Requests of one queue in one go, before others have their turn.
const REQUESTS: usize = 64;

/// After so many bytes the guest is told, so that it works while this side goes on; for less an interrupt costs more than
/// it gains.
const TELL: usize = 64 * 1024;

/// How an image is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The bytes of the disk.
    Raw,
    /// QEMU's format.
    Qcow2,
}

/// An image that another lies upon.
#[derive(Debug)]
pub struct Layer {
    /// Open for reading.
    pub image: File,
    /// How it is laid out.
    pub format: Format,
}

/// What a disk is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// How its image is laid out.
    pub format: Format,
    /// Refuse what changes the image.
    pub read_only: bool,
    /// What the guest finds as serial number; cut after 20 bytes.
    pub serial: String,
    /// Request queues.
    pub queues: u16,
}

/// The device.
#[derive(Debug)]
pub struct Block {
    disk: Disk,
    queues: u16,
    config: [u8; CONFIG],
}

/// The disk behind the queues.
#[derive(Debug)]
struct Disk {
    image: Image,
    sectors: u64,
    serial: [u8; SERIAL],
    read_only: bool,
    write_through: bool,
}

impl Block {
    /// Returns a disk as large as `image`, which lies upon `below`, the nearest layer first; a last part of a sector is
    /// left out.
    ///
    /// # Errors
    /// The size of the image cannot be found, or it is not what it is said to be.
    pub fn new(image: File, below: Vec<Layer>, options: &Options) -> io::Result<Self> {
        let mut serial = [0; SERIAL];
        for (byte, given) in serial.iter_mut().zip(options.serial.bytes()) {
            *byte = given;
        }
        let read_only = options.read_only;
        let image = match options.format {
            Format::Raw if !below.is_empty() => {
                return Err(io::Error::other("nothing can lie below a raw image"));
            }
            Format::Raw => Image::Raw(Box::new(Raw::new(image))),
            Format::Qcow2 => Image::Qcow2(Box::new(Qcow2::open(image, !read_only, below)?)),
        };
        let disk = Disk {
            image,
            sectors: 0,
            serial,
            read_only,
            write_through: false,
        };
        let mut block = Self {
            disk,
            queues: options.queues,
            config: [0; CONFIG],
        };
        block.measure()?;
        Ok(block)
    }

    /// Takes the image's size, which its owner may have changed, as the disk's.
    fn measure(&mut self) -> io::Result<()> {
        self.disk.sectors = self.disk.image.bytes()? / SECTOR;
        let mut put = |start: usize, bytes: &[u8]| {
            for (target, byte) in self.config.iter_mut().skip(start).zip(bytes) {
                *target = *byte;
            }
        };
        put(0, &self.disk.sectors.to_le_bytes());
        put(12, &MAX_SEGMENTS.to_le_bytes());
        put(20, &(SECTOR as u32).to_le_bytes());
        put(34, &self.queues.to_le_bytes());
        put(36, &MAX_RANGE_SECTORS.to_le_bytes());
        put(40, &MAX_RANGES.to_le_bytes());
        put(44, &DISCARD_SECTORS.to_le_bytes());
        put(48, &MAX_RANGE_SECTORS.to_le_bytes());
        put(52, &MAX_RANGES.to_le_bytes());
        put(56, &[1]);
        Ok(())
    }

    /// Serves one queue for a while; returns whether there may be more.
    fn serve(&mut self, queue: usize, guest: &mut Guest<'_>) -> bool {
        let memory = guest.memory;
        let Some(ring) = guest.ring(queue) else {
            return false;
        };
        ring.mute(memory);
        let mut reads = Reads::default();
        let mut untold = 0_usize;
        for _ in 0..REQUESTS {
            let Some(request) = ring.pop(memory) else {
                break;
            };
            let head = request.head;
            let bytes = request.readable.len().max(request.writable.len());
            if let Some(written) = reads.serve(request, &mut self.disk) {
                ring.push(memory, head, written);
                untold = untold.saturating_add(bytes);
                if untold >= TELL {
                    ring.notify(memory);
                    untold = 0;
                }
            }
        }
        for (head, written) in reads.finish(&mut self.disk) {
            ring.push(memory, head, written);
        }
        let more = ring.listen(memory);
        ring.notify(memory);
        more
    }
}

impl Device for Block {
    fn queues(&self) -> usize {
        usize::from(self.queues)
    }

    fn features(&self) -> u64 {
        let common = 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_FLUSH
            | 1 << VIRTIO_BLK_F_MQ;
        let changes = if self.disk.read_only {
            1 << VIRTIO_BLK_F_RO
        } else {
            1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
        };
        common | changes
    }

    fn negotiated(&mut self, features: u64) {
        self.disk.write_through = features & 1 << VIRTIO_BLK_F_FLUSH == 0;
    }

    fn config(&mut self) -> &[u8] {
        if let Err(error) = self.measure() {
            tracing::warn!("cannot find the image's size: {error}");
        }
        &self.config
    }

    fn start(&mut self, _poll: &Poll) -> io::Result<()> {
        self.disk.image.start();
        Ok(())
    }

    fn kicked(&mut self, queue: usize, guest: &mut Guest<'_>) {
        if self.serve(queue, guest) {
            guest.put_off();
        }
    }

    fn resumed(&mut self, guest: &mut Guest<'_>) {
        for queue in 0..self.queues() {
            self.kicked(queue, guest);
        }
    }
}
