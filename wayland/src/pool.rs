//! The host's copies of the guest's shared memory pools.
//!
//! Each pool is a memfd sealed against shrinking, so the compositor may map it without fear of
//! SIGBUS; only this process writes to it. All pools of a VM share one [`Budget`], which counts memory
//! in use and not sizes: foot makes pools of 512 MiB and uses a window's worth of them.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, ftruncate,
    memfd_create,
};
use rustix::io::Errno;
use thiserror::Error;

use crate::codec::{Codec, UnpackError};
use crate::frame::RowsHead;

/// The most pools one client may hold; toolkits use a handful for each window.
pub const MAX_POOLS: usize = 4096;

/// After this many bytes written to a pool its memory is measured again.
const MEASURE_EVERY: u64 = 64 * 1024;

/// How many bytes of pools a VM may still claim on the host.
#[derive(Debug)]
pub struct Budget {
    free: AtomicU64,
}

impl Budget {
    /// Returns a budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            free: AtomicU64::new(limit),
        })
    }

    fn claim(&self, bytes: u64) -> bool {
        let claim = |free: u64| free.checked_sub(bytes);
        self.free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim)
            .is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.free.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A pool request of the guest that the host refuses or can't fulfil.
#[derive(Debug, Error)]
pub enum PoolError {
    /// The guest holds too much.
    #[error("pool {0} takes more memory than this vm may use")]
    OverBudget(u32),
    /// More pools than any program uses.
    #[error("more than {MAX_POOLS} pools")]
    TooMany,
    /// A pool that is not there.
    #[error("no pool {0}")]
    Unknown(u32),
    /// A pool may only grow.
    #[error("pool {0} can't shrink")]
    Shrinks(u32),
    /// Rows outside their pool.
    #[error("rows outside pool {0}")]
    Outside(u32),
    /// Rows that do not unpack.
    #[error("cannot unpack rows for pool {id}")]
    Unpack {
        /// The pool.
        id: u32,
        /// What was wrong.
        #[source]
        source: UnpackError,
    },
    /// The kernel refused.
    #[error("cannot keep pool {id}")]
    Kernel {
        /// The pool.
        id: u32,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

#[derive(Debug)]
struct Pool {
    file: OwnedFd,
    size: u32,
    /// Bytes claimed from the budget.
    claimed: u64,
    /// Bytes written since the memory was measured.
    unmeasured: u64,
    /// The one message that carries the pool to the compositor has passed.
    passed: bool,
    dropped: bool,
}

/// The pools of one client.
#[derive(Debug)]
pub struct PoolStore {
    pools: HashMap<u32, Pool>,
    budget: Arc<Budget>,
    scratch: Vec<u8>,
}

impl PoolStore {
    /// Returns an empty store that claims from `budget`.
    #[must_use]
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            pools: HashMap::new(),
            budget,
            scratch: Vec::new(),
        }
    }

    /// Creates pool `id` or grows it to `size` bytes.
    ///
    /// # Errors
    /// When there are too many, the pool would shrink or the kernel refuses.
    pub fn set(&mut self, id: u32, size: u32) -> Result<(), PoolError> {
        let kernel = |source: Errno| PoolError::Kernel {
            id,
            source: source.into(),
        };
        if let Some(pool) = self.pools.get_mut(&id) {
            if size < pool.size {
                return Err(PoolError::Shrinks(id));
            }
            pool.size = size;
            return ftruncate(&pool.file, u64::from(size)).map_err(kernel);
        }
        if self.pools.len() >= MAX_POOLS {
            return Err(PoolError::TooMany);
        }
        let file = memfd_create("wl-pool", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .and_then(|file| ftruncate(&file, u64::from(size)).map(|()| file))
            .and_then(|file| fcntl_add_seals(&file, SealFlags::SHRINK).map(|()| file))
            .map_err(kernel)?;
        let pool = Pool {
            file,
            size,
            claimed: 0,
            unmeasured: 0,
            passed: false,
            dropped: false,
        };
        self.pools.insert(id, pool);
        Ok(())
    }

    /// Gives the memory of a part of pool `id` back; it reads as zeros from now on.
    ///
    /// # Errors
    /// When the part is not inside the pool or the kernel refuses.
    pub fn discard(&mut self, id: u32, offset: u32, len: u32) -> Result<(), PoolError> {
        let pool = self.pools.get_mut(&id).ok_or(PoolError::Unknown(id))?;
        let end = u64::from(offset) + u64::from(len);
        if len == 0 || end > u64::from(pool.size) {
            return Err(PoolError::Outside(id));
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&pool.file, flags, u64::from(offset), u64::from(len)).map_err(|source| {
            PoolError::Kernel {
                id,
                source: source.into(),
            }
        })?;
        pool.measure(id, &self.budget)
    }

    /// Writes rows into their pool.
    ///
    /// # Errors
    /// When the rows do not lie inside the pool or do not unpack.
    pub fn write(&mut self, head: &RowsHead, packed: &[u8]) -> Result<(), PoolError> {
        let id = head.pool;
        let pool = self.pools.get_mut(&id).ok_or(PoolError::Unknown(id))?;
        let (row_len, rows) = (u64::from(head.row_len), u64::from(head.rows));
        if row_len == 0 || rows == 0 {
            return Ok(());
        }
        let end = u64::from(head.offset) + u64::from(head.stride) * (rows - 1) + row_len;
        if end > u64::from(pool.size) {
            return Err(PoolError::Outside(id));
        }
        let len = head.row_len as usize * head.rows as usize;
        let raw = Codec::from_number(head.codec)
            .and_then(|codec| codec.unpack(packed, len, &mut self.scratch))
            .map_err(|source| PoolError::Unpack { id, source })?;
        let contiguous = head.rows == 1 || head.stride == head.row_len;
        let run = if contiguous {
            len
        } else {
            head.row_len as usize
        };
        let mut at = u64::from(head.offset);
        for bytes in raw.chunks(run) {
            write_all_at(&pool.file, bytes, at)
                .map_err(|source| PoolError::Kernel { id, source })?;
            at += u64::from(head.stride);
        }
        pool.unmeasured += len as u64;
        if pool.unmeasured >= MEASURE_EVERY {
            pool.measure(id, &self.budget)
        } else {
            Ok(())
        }
    }

    /// Returns a descriptor of pool `id` for the compositor.
    ///
    /// # Errors
    /// When there is no such pool or the process has no descriptors left.
    pub fn pass(&mut self, id: u32) -> Result<OwnedFd, PoolError> {
        let pool = self.pools.get_mut(&id).ok_or(PoolError::Unknown(id))?;
        let fd = pool
            .file
            .try_clone()
            .map_err(|source| PoolError::Kernel { id, source })?;
        pool.passed = true;
        self.sweep(id);
        Ok(fd)
    }

    /// Forgets pool `id` once its descriptor has been passed on.
    ///
    /// # Errors
    /// When there is no such pool.
    pub fn remove(&mut self, id: u32) -> Result<(), PoolError> {
        self.pools
            .get_mut(&id)
            .ok_or(PoolError::Unknown(id))?
            .dropped = true;
        self.sweep(id);
        Ok(())
    }

    fn sweep(&mut self, id: u32) {
        if let Some(pool) = self.pools.get(&id)
            && pool.passed
            && pool.dropped
        {
            self.budget.give_back(pool.claimed);
            self.pools.remove(&id);
        }
    }
}

impl Drop for PoolStore {
    fn drop(&mut self) {
        for pool in self.pools.values() {
            self.budget.give_back(pool.claimed);
        }
    }
}

impl Pool {
    /// Claims as much from `budget` as the pool uses now.
    fn measure(&mut self, id: u32, budget: &Budget) -> Result<(), PoolError> {
        self.unmeasured = 0;
        let stat = fstat(&self.file).map_err(|source| PoolError::Kernel {
            id,
            source: source.into(),
        })?;
        // st_blocks counts units of 512 bytes, whatever the block size (stat(3type)).
        let used = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        let more = used.saturating_sub(self.claimed);
        if !budget.claim(more) {
            return Err(PoolError::OverBudget(id));
        }
        budget.give_back(self.claimed.saturating_sub(used));
        self.claimed = used;
        Ok(())
    }
}

fn write_all_at(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(wrote) => {
                bytes = &bytes[wrote..];
                at += wrote as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(offset: u32, stride: u32, row_len: u32, rows: u32) -> RowsHead {
        RowsHead {
            pool: 1,
            offset,
            stride,
            row_len,
            rows,
            codec: 0,
        }
    }

    #[test]
    fn rows_beyond_the_pool_are_refused() {
        let mut store = PoolStore::new(Budget::new(1 << 20));
        store.set(1, 1000).unwrap();
        store.write(&head(900, 100, 100, 1), &[1; 100]).unwrap();
        for bad in [
            head(901, 100, 100, 1),
            head(0, 1000, 100, 2),
            head(u32::MAX, 1, 100, 1),
        ] {
            let bytes = vec![0; (bad.row_len * bad.rows) as usize];
            assert!(matches!(
                store.write(&bad, &bytes),
                Err(PoolError::Outside(1))
            ));
        }
    }

    #[test]
    fn the_budget_counts_memory_in_use_and_gets_it_back() {
        const LEN: u32 = 256 * 1024;
        let budget = Budget::new(u64::from(LEN) * 3 / 2);
        let mut first = PoolStore::new(budget.clone());
        let mut second = PoolStore::new(budget);
        let picture = vec![1; LEN as usize];
        for store in [&mut first, &mut second] {
            store.set(1, 1 << 30).unwrap();
        }
        first.write(&head(0, LEN, LEN, 1), &picture).unwrap();
        let over = second.write(&head(0, LEN, LEN, 1), &picture);
        assert!(matches!(over, Err(PoolError::OverBudget(1))));
        first.discard(1, 0, LEN).unwrap();
        second.write(&head(0, LEN, LEN, 1), &picture).unwrap();
        second.pass(1).unwrap();
        second.remove(1).unwrap();
        first.write(&head(0, LEN, LEN, 1), &picture).unwrap();
    }

    #[test]
    fn nothing_outside_a_pool_can_be_discarded() {
        let mut store = PoolStore::new(Budget::new(1000));
        store.set(1, 10).unwrap();
        for (offset, len) in [(0, 11), (u32::MAX, u32::MAX), (0, 0)] {
            assert!(matches!(
                store.discard(1, offset, len),
                Err(PoolError::Outside(1))
            ));
        }
    }

    #[test]
    fn a_pool_dropped_before_its_message_waits_for_it() {
        let mut store = PoolStore::new(Budget::new(1000));
        store.set(1, 10).unwrap();
        store.remove(1).unwrap();
        store.pass(1).unwrap();
        assert!(matches!(store.pass(1), Err(PoolError::Unknown(1))));
    }

    #[test]
    fn a_pool_can_grow_but_not_shrink() {
        let mut store = PoolStore::new(Budget::new(1000));
        store.set(1, 10).unwrap();
        store.set(1, 900).unwrap();
        assert!(matches!(store.set(1, 20), Err(PoolError::Shrinks(1))));
        store.write(&head(0, 900, 900, 1), &[3; 900]).unwrap();
    }
}
