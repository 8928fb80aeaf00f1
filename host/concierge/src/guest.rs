//! What a guest can ask of the host while its VM runs: one listening socket for each port, in the VM's folder.
//! The guest is hostile: connections, lengths and rates are bounded here.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub(crate) mod agent;
pub(crate) mod clock;
pub(crate) mod extras;
pub(crate) mod ready;
pub(crate) mod resolver;
mod timezone;
pub(crate) mod windows;

/// Connections served at the same time on one port; more wait in the socket's backlog.
const CONNECTIONS_MAX: usize = 16;

/// Listens where the guest's connections to the host's `port` arrive.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn listen(vsock: &Path, port: u32) -> io::Result<UnixListener> {
    link::unix::listen(&link::hybrid::listener_path(vsock, port))
}

/// Serves each connection of `listener` with `serve`, as a task of `tasks`; they end with it.
pub(crate) fn serve_each<F, S>(tasks: &mut JoinSet<()>, listener: UnixListener, serve: S)
where
    S: Fn(UnixStream) -> F + Send + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    tasks.spawn(async move {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await;
            let slot = slot.expect("the semaphore is never closed");
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            let connection = serve(stream);
            connections.spawn(async move {
                if let Err(error) = connection.await {
                    // Debug: a guest can cause any number of these.
                    tracing::debug!(%error, "connection of the guest ended");
                }
                drop(slot);
            });
        }
    });
}
