//! The resolver of the VM and its containers: takes questions on loopback and the bridge and has the host answer
//! them, so that names are always looked up as the host does it now, whatever network or VPN it has joined.
//!
//! Questions are passed on as they are, but for the names of this VM's containers, which are answered here. Nothing is
//! stored, so nothing is ever out of date.

mod message;
mod upstream;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use wire::{Fault, ports};

use crate::container::Containers;
use crate::fault::OrFault;
use crate::network::{BRIDGE_V4, BRIDGE_V6};
use upstream::Upstream;

/// The VM's own resolver configuration; its `/etc/resolv.conf` is a link to it.
const CONFIGURATION: &str = "/run/testudo/resolv.conf";

const PORT: u16 = 53;

/// Questions being answered at once on one address; more are dropped, as a busy network would.
const UDP_MAX: usize = 512;

/// Connections at once on one address.
const TCP_MAX: usize = 64;

/// A connection that asks nothing for this long is closed (RFC 7766 §6.2.3: in the order of seconds).
const TCP_IDLE: Duration = Duration::from_secs(20);

/// How long to wait before accepting again when the VM is out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on loopback and the bridge, for as long as the agent lives.
pub(crate) async fn start() -> Result<(), Fault> {
    let upstream = Upstream::start(|| link::guest::connect(ports::RESOLVER));
    for address in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        BRIDGE_V4.address,
        BRIDGE_V6.address,
    ] {
        let message = || format!("cannot resolve names for {address}");
        let address = SocketAddr::new(address, PORT);
        listen(address, &upstream)
            .await
            .or_fault("E-RESOLVER", message)?;
    }
    let text = format!("nameserver {}\n", Ipv4Addr::LOCALHOST);
    std::fs::write(CONFIGURATION, text)
        .or_fault("E-RESOLVER", || format!("cannot write {CONFIGURATION}"))
}

async fn listen(address: SocketAddr, upstream: &Upstream) -> io::Result<()> {
    let datagrams = UdpSocket::bind(address).await?;
    let connections = TcpListener::bind(address).await?;
    tokio::spawn(serve_datagrams(Arc::new(datagrams), upstream.clone()));
    tokio::spawn(serve_connections(connections, upstream.clone()));
    Ok(())
}

async fn serve_datagrams(socket: Arc<UdpSocket>, upstream: Upstream) {
    let places = Arc::new(Semaphore::new(UDP_MAX));
    let mut datagram = vec![0; message::LENGTH_MAX];
    loop {
        let (length, peer) = match socket.recv_from(&mut datagram).await {
            Ok(received) => received,
            Err(error) => {
                // An answer that a peer did not want any more is reported here too.
                tracing::debug!("cannot receive a question: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let question = datagram[..length].to_vec();
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let (socket, upstream) = (Arc::clone(&socket), upstream.clone());
        tokio::spawn(async move {
            if let Some(answer) = answer(&upstream, &question).await {
                let answer = message::fitting(answer, &question);
                let _ = socket.send_to(&answer, peer).await;
            }
            drop(place);
        });
    }
}

async fn serve_connections(listener: TcpListener, upstream: Upstream) {
    let places = Arc::new(Semaphore::new(TCP_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((connection, _)) => {
                let upstream = upstream.clone();
                tokio::spawn(async move {
                    let _ = converse(connection, &upstream).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("cannot accept a connection: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Answers the questions of one connection, one after the other.
async fn converse(mut connection: TcpStream, upstream: &Upstream) -> io::Result<()> {
    while let Ok(length) = timeout(TCP_IDLE, connection.read_u16()).await? {
        let mut question = vec![0; usize::from(length)];
        timeout(TCP_IDLE, connection.read_exact(&mut question)).await??;
        let Some(answer) = answer(upstream, &question).await else {
            return Ok(());
        };
        timeout(TCP_IDLE, connection.write_all(&message::framed(&answer))).await??;
    }
    Ok(())
}

/// Answers what is about a container, has the host answer the rest; a host that does not is reported as a failure. `None` for what is no question.
async fn answer(upstream: &Upstream, question: &[u8]) -> Option<Vec<u8>> {
    let id = message::question_id(question)?;
    if let Some(answer) = own(question) {
        return Some(answer);
    }
    Some(match upstream.ask(question).await {
        Some(answer) => message::with_id(answer, id),
        None => message::failure(question),
    })
}

/// Answers a question for one of this VM's containers.
fn own(question: &[u8]) -> Option<Vec<u8>> {
    let (label, kind) = message::single_label(question)?;
    let name = label.to_ascii_lowercase().parse().ok()?;
    let [v4, v6] = Containers::on_disk().addresses(&name)?;
    let asked = match kind {
        message::TYPE_A => vec![v4],
        message::TYPE_AAAA => vec![v6],
        _ => Vec::new(),
    };
    Some(message::addresses(question, &asked))
}
