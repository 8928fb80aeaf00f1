//! Stops a container: its init is asked, and after the time that was granted the kernel ends what is left.

use std::collections::HashSet;
use std::io;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use wire::{ContainerName, Fault, Kind};

use super::recipe::Init;
use super::rootfs::Rootfs;
use super::{Containers, Home, Live};
use crate::fault::OrFault;

/// Time to stop in when the host says nothing.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// An init that has only just started does not catch the signal yet, and then the kernel drops it
/// (pid_namespaces(7)); so it is asked again until it ends.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Killing and tidying up take the kernel and LXC moments.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Containers {
    /// Stops the container; one that does not run is left alone.
    pub(crate) async fn stop(&self, name: &ContainerName, timeout: Duration) -> Result<(), Fault> {
        let (_turn, home) = self.existing(name).await?;
        let Some(live) = Live::find(&home) else {
            return Ok(());
        };
        self.stopping().insert(name.clone());
        let ended = end(&home, &live, timeout).await;
        self.stopping().remove(name);
        ended
    }

    /// Returns the names of those that are being stopped.
    pub(super) fn stopping(&self) -> MutexGuard<'_, HashSet<ContainerName>> {
        self.stopping
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// Stops all that run, at the same time. Failures are only logged: the machine ends whatever happens.
    pub(crate) async fn stop_all(&self, timeout: Duration) {
        let stops = self.all().into_iter().map(|(name, _)| async move {
            if let Err(fault) = self.stop(&name, timeout).await {
                tracing::error!(causes = ?fault.parts().causes, "{fault}");
            }
        });
        futures_util::future::join_all(stops).await;
    }
}

/// Ends a running container, politely for `timeout`.
pub(super) async fn end(home: &Home, live: &Live, timeout: Duration) -> Result<(), Fault> {
    let message = || format!("cannot stop container {}", home.name);
    if !timeout.is_zero() {
        let init = Rootfs::open(&home.rootfs()).map_or(Init::Other, |rootfs| Init::of(&rootfs));
        if ask(live, init.halt(), timeout)
            .await
            .or_fault("E-CONTAINER-STOP", message)?
        {
            return Ok(());
        }
        tracing::warn!(container = %home.name, "did not stop in {timeout:?}, killing it");
    }
    live.kill().or_fault("E-CONTAINER-STOP", message)?;
    if live
        .ended(KILL_TIMEOUT)
        .await
        .or_fault("E-CONTAINER-STOP", message)?
    {
        return Ok(());
    }
    let cause = format!(
        "it is still there {} s after it was killed",
        KILL_TIMEOUT.as_secs()
    );
    Err(Fault::new(Kind::Internal, "E-CONTAINER-STOP", message()).cause(cause))
}

/// Asks its init to end by `signal`; returns whether it has within `timeout`.
async fn ask(live: &Live, signal: i32, timeout: Duration) -> io::Result<bool> {
    let began = Instant::now();
    loop {
        live.signal(signal)?;
        let left = timeout.saturating_sub(began.elapsed());
        if live.ended(left.min(ASK_AGAIN)).await? {
            return Ok(true);
        }
        if left <= ASK_AGAIN {
            return Ok(false);
        }
    }
}
