//! Waiting for what other processes do, never longer than a bound.

use std::time::{Duration, Instant};

/// How long anything may take on a loaded machine with two cores, an emulated VM among it.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often is looked.
const STEP: Duration = Duration::from_millis(50);

/// Returns the first value that `look` finds.
///
/// # Panics
/// When nothing is found in time; the message names `what`.
#[track_caller]
pub fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < end,
            "{what} did not happen in {PATIENCE:?}"
        );
        let _ =
            rustix::thread::nanosleep(&rustix::time::Timespec::try_from(STEP).unwrap_or_default());
    }
}

/// Waits until `holds` does.
///
/// # Panics
/// When it does not in time.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, || holds().then_some(()));
}
