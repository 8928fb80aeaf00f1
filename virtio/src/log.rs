//! Log lines that a guest can cause, limited at each place that writes them.
//!
//! The guest is hostile and the disk is the user's: no loop in the guest may fill the log.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// How many lines one place may write in a window.
const LINES_PER_WINDOW: u32 = 5;

/// How long a window lasts.
const WINDOW_SECONDS: u64 = 60;

/// The budget of one place.
#[derive(Debug, Default)]
pub struct Budget {
    window: AtomicU64,
    used: AtomicU32,
}

impl Budget {
    /// Returns a full budget.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            window: AtomicU64::new(0),
            used: AtomicU32::new(0),
        }
    }

    /// Takes one line at `seconds` since the start; returns whether it may be written.
    ///
    /// Daemons have one thread; with more, a window could let a few lines too many pass, which does no harm.
    pub fn take(&self, seconds: u64) -> bool {
        let window = seconds / WINDOW_SECONDS;
        if self.window.swap(window, Ordering::Relaxed) != window {
            self.used.store(0, Ordering::Relaxed);
        }
        self.used.fetch_add(1, Ordering::Relaxed) < LINES_PER_WINDOW
    }
}

/// Returns the seconds since this was first asked.
#[must_use]
pub fn seconds() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs()
}

/// Logs a line at a level (`warn`, `info`, `debug`), at most five times a minute from this place.
#[macro_export]
macro_rules! limited {
    ($level:ident, $($line:tt)+) => {{
        static BUDGET: $crate::log::Budget = $crate::log::Budget::new();
        if BUDGET.take($crate::log::seconds()) {
            tracing::$level!($($line)+);
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_is_cut_and_next_window_is_open() {
        let budget = Budget::new();
        let written = (0..100).filter(|_| budget.take(10)).count();
        assert_eq!(written, 5);
        assert!(budget.take(WINDOW_SECONDS));
    }
}
