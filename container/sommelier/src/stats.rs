//! What a client's windows cost, in the container: counted by its session, read by `sommelierctl top`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What one surface has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SurfaceCount {
    /// Commits that brought a new picture.
    pub(crate) frames: u64,
    /// Pixel bytes sent for them.
    pub(crate) bytes: u64,
}

/// What one client has done since it connected.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ClientCount {
    /// The process that connected.
    pub(crate) pid: i32,
    /// Its name.
    pub(crate) name: String,
    /// Each surface, by a number of its session.
    pub(crate) surfaces: HashMap<u64, SurfaceCount>,
    /// From sending pixels to knowing them in place, last time, in microseconds.
    pub(crate) round_trip_us: Option<u64>,
    /// Frame callbacks that had to wait because the host was behind.
    pub(crate) held_frames: u64,
    /// How long ago the client connected, in milliseconds.
    pub(crate) age_ms: u64,
}

#[derive(Debug)]
struct Counted {
    count: ClientCount,
    since: Instant,
}

/// The counters of one client; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Stats(Arc<Mutex<Counted>>);

/// All clients that are connected.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<Vec<Stats>>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters stay usable after a thread has died while it held them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stats {
    /// Counts a commit of `surface` that sent `bytes` of pixels.
    pub(crate) fn commit(&self, surface: u64, bytes: u64) {
        let mut counted = lock(&self.0);
        let count = counted.count.surfaces.entry(surface).or_default();
        count.frames += 1;
        count.bytes += bytes;
    }

    /// Forgets a surface that is gone.
    pub(crate) fn forget(&self, surface: u64) {
        lock(&self.0).count.surfaces.remove(&surface);
    }

    /// Counts a frame callback that had to wait.
    pub(crate) fn held(&self) {
        lock(&self.0).count.held_frames += 1;
    }

    /// Notes the latest round trip.
    pub(crate) fn round_trip(&self, trip: Duration) {
        lock(&self.0).count.round_trip_us = u64::try_from(trip.as_micros()).ok();
    }
}

impl Registry {
    /// Adds the client of process `pid`.
    pub(crate) fn add(&self, pid: i32, name: String) -> Stats {
        let count = ClientCount {
            pid,
            name,
            ..ClientCount::default()
        };
        let stats = Stats(Arc::new(Mutex::new(Counted {
            count,
            since: Instant::now(),
        })));
        lock(&self.0).push(stats.clone());
        stats
    }

    /// Removes a client that has gone.
    pub(crate) fn remove(&self, stats: &Stats) {
        lock(&self.0).retain(|each| !Arc::ptr_eq(&each.0, &stats.0));
    }

    /// Returns the counters of every client.
    #[must_use]
    pub(crate) fn snapshot(&self) -> Vec<ClientCount> {
        let each = |stats: &Stats| {
            let counted = lock(&stats.0);
            let age_ms = u64::try_from(counted.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            ClientCount {
                age_ms,
                ..counted.count.clone()
            }
        };
        lock(&self.0).iter().map(each).collect()
    }
}
