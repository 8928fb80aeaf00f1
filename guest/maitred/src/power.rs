//! Ends the machine: containers first, then everything written, then the word to PID 1.

use std::time::Duration;

use wire::proto::PowerOffRequest;

use crate::agent::Agent;

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
        self.containers.stop_all(timeout).await;
        rustix::fs::sync();
        tracing::info!("the machine ends");
        self.power_off.notify_waiters();
    }
}
