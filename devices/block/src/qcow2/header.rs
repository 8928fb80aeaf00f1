//! The header of a qcow2 image, looked at before anything believes it (QEMU's docs/interop/qcow2.txt).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of the header of version 3 up to `header_length`; version 2 ends at 72.
const BYTES: usize = 104;

const MAGIC: u32 = 0x5146_49fb;

/// Clusters of 512 bytes to 2 MiB, as QEMU has them.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// The largest first-level table: 32 MiB as in QEMU, which with the default clusters is a disk of 2 PiB. It is read into
/// memory whole.
const MAX_L1_ENTRIES: u64 = (32 << 20) / 8;

/// The largest table of reference counts: 8 MiB as in QEMU.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;

/// Reference counts of one to 64 bits, as powers of two.
const MAX_COUNT_ORDER: u32 = 6;

/// Incompatible features and what is said about each; there is none that imago knows and a disk could have.
const REFUSED: [(u64, &str); 6] = [
    (
        1 << 0,
        "the qcow2 image was not closed, and its reference counts need repair",
    ),
    (1 << 1, "the qcow2 image is marked as corrupt"),
    (1 << 2, "the qcow2 image keeps its data in another file"),
    (
        1 << 3,
        "the qcow2 image is compressed in another way than with zlib",
    ),
    (
        1 << 4,
        "the qcow2 image has clusters with parts (extended_l2)",
    ),
    (u64::MAX, "the qcow2 image has features that are not known"),
];

/// What is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// It lies upon another image.
    pub(super) has_backing: bool,
    /// Bytes of a cluster.
    pub(super) cluster: u64,
    /// Bits of a reference count.
    pub(super) count_bits: u32,
    /// Where the table of reference counts is, and its bytes, of which there are at most 8 MiB.
    pub(super) counts: (u64, u64),
}

impl Header {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// It is none, breaks a limit, or asks for what this device does not do.
    pub(super) fn read(image: &File) -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        let mut done = 0;
        while let Some(rest @ [_, ..]) = bytes.get_mut(done..) {
            match image.read_at(rest, done as u64)? {
                0 => break,
                count => done = done.saturating_add(count),
            }
        }
        check(&bytes).map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))
    }
}

fn check(bytes: &[u8; BYTES]) -> Result<Header, &'static str> {
    let word = |at: usize| {
        let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
        field.map_or(0, |field| u32::from_be_bytes(*field))
    };
    let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at.saturating_add(4)));
    let (version, cluster_bits, size) = (word(4), word(20), long(24));
    let (l1_entries, refcount_clusters) = (u64::from(word(36)), u64::from(word(56)));
    if word(0) != MAGIC {
        return Err("the image is not qcow2");
    }
    if !matches!(version, 2 | 3) {
        return Err("the qcow2 image is of an unknown version");
    }
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return Err("the qcow2 image has clusters of an impossible size");
    }
    let cluster = 1_u64 << cluster_bits;
    let covered = l1_entries
        .saturating_mul(cluster / 8)
        .saturating_mul(cluster);
    if l1_entries > MAX_L1_ENTRIES || size > covered {
        return Err("the qcow2 image's table of clusters does not fit its size");
    }
    let counts = (long(48), refcount_clusters.saturating_mul(cluster));
    if counts.1 > MAX_REFCOUNT_TABLE {
        return Err("the qcow2 image's table of reference counts is too large");
    }
    if word(32) != 0 {
        return Err("the qcow2 image is encrypted");
    }
    if word(60) != 0 {
        return Err("the qcow2 image has snapshots in it, which a write would break");
    }
    let features = if version == 3 { long(72) } else { 0 };
    if let Some((_, problem)) = REFUSED.iter().find(|(mask, _)| features & mask != 0) {
        return Err(problem);
    }
    // Counts of version 2 have 16 bits.
    let count_order = if version == 3 { word(96) } else { 4 };
    if count_order > MAX_COUNT_ORDER {
        return Err("the qcow2 image has reference counts of an impossible size");
    }
    Ok(Header {
        has_backing: long(8) != 0,
        cluster,
        count_bits: 1 << count_order,
        counts,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 1 GiB in clusters of 64 KiB.
    fn good() -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        for (at, word) in [
            (0, MAGIC),
            (4, 3),
            (20, 16),
            (28, 1 << 30),
            (36, 2),
            (52, 1 << 16),
            (56, 1),
            (96, 4),
        ] {
            bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn what_breaks_a_limit_is_refused() {
        let header = Header {
            has_backing: false,
            cluster: 1 << 16,
            count_bits: 16,
            counts: (1 << 16, 1 << 16),
        };
        assert_eq!(check(&good()), Ok(header));
        for (at, value) in [
            (0, 1),
            (4, 1),
            (4, 4),
            (20, 8),
            (20, 22),
            (20, 200),
            (24, 1),
            (36, 1),
            (36, 5 << 20),
            (56, 129),
            (32, 1),
            (60, 1),
            (76, 1),
            (76, 2),
            (76, 4),
            (76, 8),
            (76, 16),
            (72, 1 << 31),
            (96, 7),
        ] {
            let mut bytes = good();
            bytes[at..at + 4].copy_from_slice(&u32::to_be_bytes(value));
            assert!(check(&bytes).is_err(), "{value} at {at}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes: [u8; BYTES], keep in 0..BYTES) {
            let mut mixed = good();
            mixed[keep..].copy_from_slice(&bytes[keep..]);
            let _either_is_fine = check(&mixed);
        }
    }
}
