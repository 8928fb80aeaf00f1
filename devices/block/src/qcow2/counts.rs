//! The table of reference counts, looked at before anything is written by it (QEMU's docs/interop/qcow2.txt).
//!
//! imago believes the table. Where the part with the header's own count is missing it makes one at the place of the header,
//! which counts as missing again, and goes deeper each time until its stack ends. Where two parts share a block, it counts
//! one cluster for another.

use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use super::header::Header;

/// Bytes of an entry of the table, of which the last nine bits are not part of the place.
const ENTRY: usize = 8;
const PLACE: u64 = !0x1ff;

const CUT: &str = "the qcow2 image ends before its reference counts do";

/// Checks that new clusters can be found by the counts of `image`.
///
/// # Errors
/// They can't.
pub(super) fn check(image: &File, header: &Header) -> io::Result<()> {
    let (start, bytes) = header.counts;
    let size = usize::try_from(bytes).map_err(|_beyond| ErrorKind::InvalidData)?;
    let mut table = vec![0; size];
    read(image, &mut table, start)?;
    let entries = table.as_chunks::<ENTRY>().0;
    let mut blocks: Vec<u64> = entries
        .iter()
        .map(|entry| u64::from_be_bytes(*entry) & PLACE)
        .collect();
    let first = blocks.first().copied().unwrap_or_default();
    if first == 0 || !counts_itself(image, header, first)? {
        return refuse("the qcow2 image does not count its own header");
    }
    blocks.retain(|block| *block != 0);
    blocks.sort_unstable();
    // A block device has no length but an end.
    let end = { image }.seek(SeekFrom::End(0))?;
    if blocks.last().is_some_and(|last| *last >= end) {
        return refuse(CUT);
    }
    if blocks.windows(2).any(|two| two.first() == two.last()) {
        return refuse("the qcow2 image has one block of reference counts in two places");
    }
    Ok(())
}

/// Returns whether the first cluster, which has the header, is counted as used in its block.
fn counts_itself(image: &File, header: &Header, block: u64) -> io::Result<bool> {
    let mut first = [0; 8];
    read(image, &mut first, block)?;
    // Counts of less than a byte begin with its lowest bits; larger ones are big-endian.
    let count = match header.count_bits {
        bits @ 1..8 => u64::from(first[0]) & ((1 << bits) - 1),
        bits => u64::from_be_bytes(first) >> 64_u32.saturating_sub(bits),
    };
    Ok(count != 0)
}

fn read(image: &File, bytes: &mut [u8], start: u64) -> io::Result<()> {
    match image.read_exact_at(bytes, start) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => refuse(CUT),
        result => result,
    }
}

fn refuse<T>(problem: &str) -> io::Result<T> {
    Err(io::Error::new(ErrorKind::InvalidData, problem))
}
