//! Shells and commands for the host: accepts connections and gives each a process of its own.
//!
//! A session's process is this same program, started again with the connection as its standard input. So one
//! session cannot disturb another, and all of them outlive an agent that is killed.
//!
//! ```text
//! host ── vsock ── session ── pty or pipes ── the command, in the container's namespaces
//! ```

mod client;
mod launch;
mod locale;
mod pump;
pub(crate) mod session;
mod target;
mod terminal;
mod windows;

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use link::guest::Incoming;
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::SELF;

/// Sessions at the same time. Each takes two processes and about a megabyte.
const SESSIONS_MAX: usize = 256;

/// How long to wait before accepting again when the VM is out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts sessions for as long as the agent lives. When there are too many, new ones wait.
pub(crate) async fn serve(mut connections: Incoming) {
    let places = Arc::new(Semaphore::new(SESSIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let connection = match connections.accept().await {
            Ok(connection) => OwnedFd::from(connection),
            Err(error) => {
                tracing::warn!("cannot accept a session: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let session = Command::new(SELF)
            .arg("session")
            .stdin(Stdio::from(connection))
            .stdout(Stdio::null())
            .spawn();
        match session {
            Ok(mut session) => {
                tokio::spawn(async move {
                    let _ = session.wait().await;
                    drop(place);
                });
            }
            Err(error) => tracing::error!("cannot start a session: {error}"),
        }
    }
}
