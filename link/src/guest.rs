//! The real vsock, as programs in the VM see it.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::Stream;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};
use tonic::transport::server::Connected;

/// A vsock connection that a tonic server accepts (neither `tokio-vsock` nor `tonic` knows the other's version).
#[derive(Debug)]
pub struct GuestStream(VsockStream);

/// Connections to one port, accepted from the host only.
#[derive(Debug)]
pub struct Incoming(VsockListener);

/// Listens on `port` of this VM.
///
/// # Errors
/// When there is no vsock device or the port is taken.
pub fn listen(port: u32) -> io::Result<Incoming> {
    VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port)).map(Incoming)
}

/// Connects to `port` of the host.
///
/// # Errors
/// When nobody listens there.
pub async fn connect(port: u32) -> io::Result<GuestStream> {
    VsockStream::connect(VsockAddr::new(wire::ports::HOST_CID, port))
        .await
        .map(GuestStream)
}

impl Incoming {
    /// Waits for the next connection of the host; one from any other peer is dropped.
    ///
    /// # Errors
    /// When accepting fails.
    pub async fn accept(&mut self) -> io::Result<GuestStream> {
        loop {
            let (stream, peer) = self.0.accept().await?;
            if peer.cid() == wire::ports::HOST_CID {
                return Ok(GuestStream(stream));
            }
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<GuestStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.0.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Ok((stream, peer))) if peer.cid() == wire::ports::HOST_CID => {
                    return Poll::Ready(Some(Ok(GuestStream(stream))));
                }
                Poll::Ready(Ok(_)) => {}
            }
        }
    }
}

/// The connection itself, for another process; it stays in non-blocking mode.
impl From<GuestStream> for OwnedFd {
    fn from(stream: GuestStream) -> Self {
        stream.0.into()
    }
}

impl Connected for GuestStream {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for GuestStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for GuestStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
