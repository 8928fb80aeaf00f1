//! The VM's vsock as the host sees it: one unix socket per VM; `CONNECT port` reaches the guest's port, and a
//! guest's connection to the host's port `P` arrives at the socket's path with `_P` appended (the convention of
//! Firecracker, docs/vsock.md).

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tower::service_fn;

/// Longest acknowledgement: `OK ` and a 32-bit number.
const ACKNOWLEDGEMENT_MAX: usize = 16;

/// How long a server in the guest may take to come back; maitred starts a killed agent again after 0.2 s.
const BACK: Duration = Duration::from_secs(5);

/// How often it is tried meanwhile.
const BACK_INTERVAL: Duration = Duration::from_millis(50);

/// Returns where connections of the guest to the host's `port` arrive.
#[must_use]
pub fn listener_path(socket: &Path, port: u32) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(format!("_{port}"));
    path.into()
}

/// Connects to the guest's `port` through the VM's hybrid socket.
///
/// # Errors
/// `ConnectionRefused` when nobody listens on that port in the guest (the stream is closed without an
/// acknowledgement); anything else when the socket itself cannot be reached.
pub async fn connect(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await?;
    let mut answer = Vec::with_capacity(ACKNOWLEDGEMENT_MAX);
    // Byte by byte: what follows the line end belongs to the caller.
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) if answer.len() < ACKNOWLEDGEMENT_MAX => answer.push(byte),
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "answer is not `OK port`",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Err(error) => return Err(error),
        }
    }
    if !answer.starts_with(b"OK ") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "answer is not `OK port`",
        ));
    }
    Ok(stream)
}

/// Connects to the gRPC server on the guest's `port`. A call after that server was killed and started again waits for
/// it and goes to the new one.
///
/// # Errors
/// As [`connect`], or when the HTTP/2 handshake fails.
pub async fn channel(socket: &Path, port: u32) -> io::Result<Channel> {
    let socket: Arc<Path> = socket.into();
    let connector = service_fn(move |_| {
        let socket = Arc::clone(&socket);
        async move { Ok::<_, io::Error>(TokioIo::new(connect_patiently(&socket, port).await?)) }
    });
    crate::unix::endpoint()
        .connect_with_connector(connector)
        .await
        .map_err(io::Error::other)
}

/// As [`connect`], but waits a little for somebody to listen on the port.
async fn connect_patiently(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let deadline = Instant::now() + BACK;
    loop {
        match connect(socket, port).await {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused
                    && Instant::now() < deadline =>
            {
                sleep(BACK_INTERVAL).await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    async fn answer_with(answer: &'static [u8]) -> io::Result<UnixStream> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsock.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut line = [0; 13];
            stream.read_exact(&mut line).await.unwrap();
            assert_eq!(&line, b"CONNECT 9001\n");
            stream.write_all(answer).await.unwrap();
        });
        let stream = connect(&path, 9001).await;
        peer.await.unwrap();
        stream
    }

    #[tokio::test]
    async fn bytes_after_the_acknowledgement_are_the_callers() {
        let mut stream = answer_with(b"OK 1073741824\nhello").await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "hello");
    }

    #[tokio::test]
    async fn a_closed_port_is_a_refused_connection() {
        assert_eq!(
            answer_with(b"").await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[tokio::test]
    async fn a_wrong_acknowledgement_is_refused() {
        for wrong in [&b"NO 1\n"[..], b"OK 11111111111111111111111111\n"] {
            assert_eq!(
                answer_with(wrong).await.unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
    }

    #[tokio::test]
    async fn a_server_that_comes_back_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsock.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let peer = tokio::spawn(async move {
            for answer in [&b""[..], b"OK 1\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut line = [0; 13];
                stream.read_exact(&mut line).await.unwrap();
                stream.write_all(answer).await.unwrap();
            }
        });
        connect_patiently(&path, 9001).await.unwrap();
        peer.await.unwrap();
    }
}
