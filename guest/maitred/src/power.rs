//! Ends the machine: containers first, then everything written, then the word to PID 1.

use std::time::Duration;

use wire::proto::PowerOffRequest;

use crate::agent::Agent;
use crate::extras;

/// Containers get this long to stop when the host says nothing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that is granted, so that no request keeps a machine up for ever.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

impl Agent {
    /// Stops all containers and writes everything to the disk; what does not stop in time is killed. The machine
    /// ends once the answer to the host has left.
    pub(crate) async fn power_off(&self, request: PowerOffRequest) {
        let timeout = match request.timeout_ms {
            0 => TIMEOUT,
            ms => Duration::from_millis(u64::from(ms)).min(TIMEOUT_MAX),
        };
        // Both at the same time, each with all of it.
        let others = tokio::task::spawn_blocking(move || extras::stop(timeout));
        let ((), others) = tokio::join!(self.containers.stop_all(timeout), others);
        if !others.unwrap_or(false) {
            tracing::warn!("Incus did not stop in {timeout:?}");
        }
        rustix::fs::sync();
        tracing::info!("the machine ends");
        self.power_off.notify_waiters();
    }
}
