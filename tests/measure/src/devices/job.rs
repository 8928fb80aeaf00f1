//! What host and guest do together, known to both.

use std::io::{Read, Result, Write};
use std::time::{Duration, Instant};

/// Where the host listens, in a network of its own (RFC 5737), and on a vsock.
pub(crate) const SERVER: &str = "192.0.2.1";
pub(crate) const PORT: u16 = 5001;

/// How long each load lasts.
pub(crate) const LOAD: Duration = Duration::from_secs(2);

/// How many single bytes go there and back.
pub(crate) const ROUND_TRIPS: u32 = 500;

/// What is done on a stream: bytes to the host, bytes to the guest, one byte to and fro.
pub(crate) const JOBS: &[u8] = b"udp";

/// The size of the disk.
pub(crate) const DISK_BYTES: u64 = 256 << 20;

/// Name, bytes of a request, threads, whether it writes, whether it flushes after each.
pub(crate) const BLOCK: [(&str, usize, u64, bool, bool); 5] = [
    ("read_256k", 256 << 10, 4, false, false),
    ("write_256k", 256 << 10, 4, true, false),
    ("read_4k", 4 << 10, 8, false, false),
    ("write_4k", 4 << 10, 8, true, false),
    ("flush_4k", 4 << 10, 1, true, true),
];

/// One write or read of a stream. vhost-device-vsock refuses packets in several parts, which Linux makes of larger ones.
const PIECE: usize = 16 * 1024;

/// The first byte of the last piece: not every peer passes the end of one direction on.
const LAST: u8 = 1;

/// Sends pieces for as long as a load lasts; returns how many bytes.
pub(crate) fn send(stream: &mut impl Write) -> Result<usize> {
    let (start, mut piece, mut bytes) = (Instant::now(), vec![0; PIECE], 0);
    while piece[0] != LAST {
        if start.elapsed() >= LOAD {
            piece[0] = LAST;
        }
        stream.write_all(&piece)?;
        bytes += PIECE;
    }
    Ok(bytes)
}

/// Receives pieces up to the last; returns how many bytes.
pub(crate) fn receive(stream: &mut impl Read) -> Result<usize> {
    let (mut piece, mut bytes) = (vec![0; PIECE], 0);
    while piece[0] != LAST {
        stream.read_exact(&mut piece)?;
        bytes += PIECE;
    }
    Ok(bytes)
}
