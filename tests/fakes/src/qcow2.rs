//! A new qcow2 image, made from the format's description (QEMU's docs/interop/qcow2.txt) and not by the crate under test.

/// Bytes of a cluster.
const CLUSTER: usize = 64 * 1024;

/// Where things are, in clusters: header, table of reference counts, its one block, first-level table.
const REFCOUNT_TABLE: usize = 1;
const REFCOUNT_BLOCK: usize = 2;
const L1_TABLE: usize = 3;
const CLUSTERS: usize = 4;

/// Returns an empty image of a disk of `bytes`, upon the image called `backing` if there is one.
///
/// # Panics
/// The disk is larger than one first-level table holds: 4 TiB.
#[must_use]
pub fn empty(bytes: u64, backing: Option<&str>) -> Vec<u8> {
    let covered = (CLUSTER / 8 * CLUSTER) as u64;
    let entries = bytes.div_ceil(covered);
    assert!(
        entries <= (CLUSTER / 8) as u64,
        "one cluster holds the table"
    );
    let mut image = vec![0; CLUSTERS * CLUSTER];
    let mut put = |at: usize, field: &[u8]| image[at..at + field.len()].copy_from_slice(field);
    let at = |cluster: usize| ((cluster * CLUSTER) as u64).to_be_bytes();
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    if let Some(name) = backing {
        put(8, &512_u64.to_be_bytes());
        put(16, &u32::try_from(name.len()).unwrap().to_be_bytes());
        put(512, name.as_bytes());
    }
    put(20, &CLUSTER.ilog2().to_be_bytes());
    put(24, &bytes.to_be_bytes());
    put(36, &u32::try_from(entries).unwrap().to_be_bytes());
    put(40, &at(L1_TABLE));
    put(48, &at(REFCOUNT_TABLE));
    put(56, &1_u32.to_be_bytes());
    // Counts of 16 bits, a header of 104 bytes, and no extension after it.
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    put(REFCOUNT_TABLE * CLUSTER, &at(REFCOUNT_BLOCK));
    for cluster in 0..CLUSTERS {
        put(REFCOUNT_BLOCK * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
    }
    image
}
