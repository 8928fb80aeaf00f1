//! One request of the driver (virtio 1.3 §5.2.6): what it asks, checked against the disk, and the answer.

use std::io;

use virtio::{Buffers, Chain, limited};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES,
};

use crate::Disk;

/// Bytes of a sector, whatever the disk's block size (virtio 1.3 §5.2.4).
pub(crate) const SECTOR: u64 = 512;

/// Type, priority, sector.
const HEADER: usize = 16;

/// Bytes of a serial number (virtio 1.3 §5.2.6).
pub(crate) const SERIAL: usize = 20;

/// Sector, count, flags of one range to discard or zero.
const RANGE: usize = 16;

/// The most ranges in one request; the configuration space says so.
pub(crate) const MAX_RANGES: u32 = 16;

/// The most sectors in one range (1 GiB), so that one request cannot keep the daemon busy for long.
pub(crate) const MAX_RANGE_SECTORS: u32 = 1 << 21;

/// The only flag of a range: `VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP`.
const UNMAP: u32 = 1;

/// Why a request fails.
#[derive(Debug)]
enum Failure {
    /// The disk cannot do that.
    Unsupported,
    /// It is beyond the end, malformed, or writes to a disk that is only read.
    Refused,
    /// The host's storage failed.
    Storage(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Storage(error)
    }
}

/// Reads that came together, which wait together for their data.
#[derive(Debug, Default)]
pub(crate) struct Reads<'m> {
    requests: Vec<Chain<'m>>,
    targets: Vec<(Buffers<'m>, u64)>,
}

impl<'m> Reads<'m> {
    /// Does what the driver asks and writes its status; returns how many bytes were written, 0 if there is no room for
    /// a status. A read that has to wait is kept for [`Reads::finish`]: nothing is returned for it now.
    pub(crate) fn serve(&mut self, request: Chain<'m>, disk: &mut Disk) -> Option<u32> {
        let Some(room) = request.writable.len().checked_sub(1) else {
            return Some(0);
        };
        match read(&request, room, disk) {
            Ok(Some((target, offset))) if disk.image.read_now(&target, offset) => {
                Some(answer(&request, Ok(target.len())))
            }
            Ok(Some(target)) => {
                self.requests.push(request);
                self.targets.push(target);
                None
            }
            Ok(None) => Some(answer(&request, act(&request, room, disk))),
            Err(failure) => Some(answer(&request, Err(failure))),
        }
    }

    /// Does the reads that were kept; returns head and bytes written for each.
    pub(crate) fn finish(self, disk: &mut Disk) -> Vec<(u16, u32)> {
        if self.requests.is_empty() {
            return Vec::new();
        }
        let results = disk.image.read_all(&self.targets);
        let each = self.requests.iter().zip(&self.targets).zip(results);
        each.map(|((request, (target, _)), result)| {
            let outcome = result.map(|()| target.len()).map_err(Failure::from);
            (request.head, answer(request, outcome))
        })
        .collect()
    }
}

/// Returns where a read wants its data and from where on the disk; nothing if the request is not a read.
fn read<'m>(
    request: &Chain<'m>,
    room: usize,
    disk: &Disk,
) -> Result<Option<(Buffers<'m>, u64)>, Failure> {
    let kind = u32::from_le_bytes(request.readable.read_array(0).ok_or(Failure::Refused)?);
    let sector = u64::from_le_bytes(request.readable.read_array(8).ok_or(Failure::Refused)?);
    if kind != VIRTIO_BLK_T_IN {
        return Ok(None);
    }
    let target = request.writable.part(0, room);
    let offset = disk.place(sector, target.len() as u64)?;
    Ok(Some((target, offset)))
}

/// Writes the status of a request that has `written` bytes of data in it; returns how many bytes count as written.
fn answer(request: &Chain<'_>, outcome: Result<usize, Failure>) -> u32 {
    let room = request.writable.len().saturating_sub(1);
    let (status, written) = match outcome {
        Ok(written) => (VIRTIO_BLK_S_OK, written),
        Err(Failure::Unsupported) => (VIRTIO_BLK_S_UNSUPP, 0),
        Err(Failure::Refused) => (VIRTIO_BLK_S_IOERR, 0),
        Err(Failure::Storage(error)) => {
            limited!(warn, "the disk's storage failed: {error}");
            (VIRTIO_BLK_S_IOERR, 0)
        }
    };
    let status = u8::try_from(status).expect("a status is one byte");
    request.writable.write(room, &[status]);
    // The status is the last byte, so all before it counts as written.
    let all = if written == room {
        written.saturating_add(1)
    } else {
        request.writable.len()
    };
    u32::try_from(all).unwrap_or(u32::MAX)
}

/// Does what the driver asks; returns how many bytes of data were written to it.
fn act(request: &Chain<'_>, room: usize, disk: &mut Disk) -> Result<usize, Failure> {
    let kind = u32::from_le_bytes(request.readable.read_array(0).ok_or(Failure::Refused)?);
    let sector = u64::from_le_bytes(request.readable.read_array(8).ok_or(Failure::Refused)?);
    let written = || request.readable.part(HEADER, request.readable.len());
    match kind {
        VIRTIO_BLK_T_OUT => {
            let source = written();
            let offset = disk.place_to_write(sector, source.len() as u64)?;
            disk.image.write(&source, offset)?;
            disk.settle()?;
            Ok(0)
        }
        VIRTIO_BLK_T_FLUSH => {
            disk.image.flush()?;
            Ok(0)
        }
        VIRTIO_BLK_T_GET_ID => {
            let room = request.writable.part(0, room);
            Ok(room.write(0, &disk.serial))
        }
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
            for range in ranges(&written())? {
                clear(range, kind, disk)?;
            }
            disk.settle()?;
            Ok(0)
        }
        _ => Err(Failure::Unsupported),
    }
}

/// A range of a discard or write-zeroes request.
#[derive(Clone, Copy, Debug)]
struct Range {
    sector: u64,
    sectors: u32,
    flags: u32,
}

/// Reads the ranges of a request, all before the first is acted on.
fn ranges(data: &Buffers<'_>) -> Result<Vec<Range>, Failure> {
    let count = data.len() / RANGE;
    if !data.len().is_multiple_of(RANGE) || count == 0 || count > MAX_RANGES as usize {
        return Err(Failure::Refused);
    }
    let field = |start: usize| data.read_array::<4>(start).map(u32::from_le_bytes);
    let range = |start: usize| {
        let sector = u64::from_le_bytes(data.read_array(start)?);
        let (sectors, flags) = (
            field(start.saturating_add(8))?,
            field(start.saturating_add(12))?,
        );
        Some(Range {
            sector,
            sectors,
            flags,
        })
    };
    (0..count)
        .map(|index| range(index.saturating_mul(RANGE)).ok_or(Failure::Refused))
        .collect()
}

/// Discards or zeroes one range.
fn clear(range: Range, kind: u32, disk: &mut Disk) -> Result<(), Failure> {
    let Range {
        sector,
        sectors,
        flags,
    } = range;
    let may_unmap = kind == VIRTIO_BLK_T_WRITE_ZEROES;
    // A discard has no flag, and nothing has an unknown one (virtio 1.3 §5.2.6.2).
    if flags & !UNMAP != 0 || (flags & UNMAP != 0 && !may_unmap) {
        return Err(Failure::Unsupported);
    }
    if sectors > MAX_RANGE_SECTORS {
        return Err(Failure::Refused);
    }
    let bytes = u64::from(sectors).saturating_mul(SECTOR);
    let offset = disk.place_to_write(sector, bytes)?;
    if bytes == 0 {
        return Ok(());
    }
    if kind == VIRTIO_BLK_T_DISCARD {
        disk.image.discard(offset, bytes)?;
    } else {
        disk.image.write_zeroes(offset, bytes, flags & UNMAP != 0)?;
    }
    Ok(())
}

impl Disk {
    /// Returns the offset of `sector` if `bytes` from there on are on the disk.
    fn place(&self, sector: u64, bytes: u64) -> Result<u64, Failure> {
        let offset = sector.checked_mul(SECTOR).ok_or(Failure::Refused)?;
        let end = offset.checked_add(bytes).ok_or(Failure::Refused)?;
        let inside = end <= self.sectors.saturating_mul(SECTOR) && bytes.is_multiple_of(SECTOR);
        if inside {
            Ok(offset)
        } else {
            Err(Failure::Refused)
        }
    }

    fn place_to_write(&self, sector: u64, bytes: u64) -> Result<u64, Failure> {
        if self.read_only {
            Err(Failure::Refused)
        } else {
            self.place(sector, bytes)
        }
    }

    /// Makes a write durable at once for a driver that cannot flush (virtio 1.3 §5.2.6.2).
    fn settle(&self) -> Result<(), Failure> {
        if self.write_through {
            Ok(self.image.flush()?)
        } else {
            Ok(())
        }
    }
}
