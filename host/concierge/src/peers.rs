//! Who connects to the daemon's socket, on the host: only this user, and they are counted, since the daemon ends when
//! nobody is left.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// How many clients there are, and how many there were.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    now: AtomicUsize,
    ever: AtomicUsize,
}

impl Count {
    /// Returns how many clients are connected.
    pub(crate) fn now(&self) -> usize {
        self.0.now.load(Ordering::Relaxed)
    }

    /// Returns how many clients have ever connected.
    pub(crate) fn ever(&self) -> usize {
        self.0.ever.load(Ordering::Relaxed)
    }
}

/// The clients that connect.
#[derive(Debug)]
pub(crate) struct Incoming {
    listener: UnixListener,
    count: Count,
    uid: u32,
}

impl Incoming {
    /// Returns the clients of `listener` that this user runs.
    pub(crate) fn new(listener: UnixListener, count: Count) -> Self {
        Self {
            listener,
            count,
            uid: rustix::process::getuid().as_raw(),
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Peer>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (stream, _) = ready!(self.listener.poll_accept(context))?;
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == self.uid => {
                    self.count.0.now.fetch_add(1, Ordering::Relaxed);
                    self.count.0.ever.fetch_add(1, Ordering::Relaxed);
                    let count = self.count.clone();
                    return Poll::Ready(Some(Ok(Peer { stream, count })));
                }
                // The socket's mode keeps others out already; root passes it.
                Ok(peer) => tracing::warn!(uid = peer.uid(), "refused a client of another user"),
                Err(error) => tracing::warn!(%error, "cannot tell who connects"),
            }
        }
    }
}

/// One client.
#[derive(Debug)]
pub(crate) struct Peer {
    stream: UnixStream,
    count: Count,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.count.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connected for Peer {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn own_clients_are_counted_and_others_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let count = Count::default();
        let mut incoming = Incoming::new(link::unix::listen(&path).unwrap(), count.clone());
        let _client = UnixStream::connect(&path).await.unwrap();
        let peer = incoming.next().await.unwrap().unwrap();
        assert_eq!((count.now(), count.ever()), (1, 1));
        drop(peer);
        assert_eq!((count.now(), count.ever()), (0, 1));
        // As if the socket belonged to another user.
        incoming.uid = incoming.uid.wrapping_add(1);
        let stranger = UnixStream::connect(&path).await.unwrap();
        let wait = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(wait, incoming.next()).await.is_err());
        stranger.readable().await.unwrap();
        assert_eq!(stranger.try_read(&mut [0]).unwrap(), 0);
        assert_eq!(count.ever(), 1);
    }
}
