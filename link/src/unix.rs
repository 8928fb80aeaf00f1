//! The daemon's own socket: connecting as a client and listening as concierge.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Connects to the gRPC server that listens at `path`.
///
/// # Errors
/// When nobody listens there; `NotFound` and `ConnectionRefused` mean that the daemon does not run.
pub async fn connect(path: &Path) -> io::Result<Channel> {
    let stream = UnixStream::connect(path).await?;
    channel(stream).await
}

/// Speaks gRPC over an already connected stream. The channel ends with the stream: there is no reconnecting
/// behind the caller's back, since the peer that comes back would be another one.
///
/// # Errors
/// When the HTTP/2 handshake fails.
pub async fn channel(stream: UnixStream) -> io::Result<Channel> {
    let mut stream = Some(stream);
    let connector = service_fn(move |_| {
        let stream = stream.take().ok_or(io::ErrorKind::NotConnected);
        async move { Ok::<_, io::Error>(TokioIo::new(stream?)) }
    });
    endpoint()
        .connect_with_connector(connector)
        .await
        .map_err(io::Error::other)
}

/// Returns where a connector of ours connects to: the address is never looked up, it only has to be a URI.
pub(crate) fn endpoint() -> Endpoint {
    Endpoint::from_static("http://peer.invalid")
}

/// Listens at `path` with mode 0600, replacing a socket that nobody serves. The caller holds the lock that says
/// that it is the only daemon.
///
/// # Errors
/// When the directory is missing or not writable.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
