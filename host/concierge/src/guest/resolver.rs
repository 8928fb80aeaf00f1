//! Answers the guest's name queries with the host's own resolvers, on the host: DNS messages in TCP framing
//! (RFC 1035 §4.2.2), any number on a connection, answered in any order.
//!
//! The resolvers are those of `/etc/resolv.conf` at the moment of each query, so a VPN that comes up is used at
//! once. A query goes out unchanged but for its identifier, which is a new random one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// Where the host says whom to ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// As glibc: more lines are ignored (resolv.conf(5), `MAXNS`).
const SERVERS_MAX: usize = 3;

/// The DNS port.
const PORT: u16 = 53;

/// The header (RFC 1035 §4.1.1).
const HEADER: usize = 12;

/// Longest query accepted: a name has 255 bytes, and EDNS options are small.
const QUERY_MAX: usize = 4096;

/// Queries of one connection that are answered at the same time; more wait.
const QUERIES_MAX: usize = 32;

/// How long one server may take before the next is asked; resolv.conf's default is 5 s for the first.
const SERVER_DEADLINE: Duration = Duration::from_secs(3);

/// How often the list of servers is gone through.
const ROUNDS: usize = 2;

/// Serves one connection of the guest until it closes it.
///
/// # Errors
/// When the guest breaks the framing or goes away.
pub(crate) async fn serve(stream: UnixStream) -> io::Result<()> {
    serve_with(stream, Arc::from(Path::new(RESOLV_CONF)), PORT).await
}

async fn serve_with(stream: UnixStream, resolv_conf: Arc<Path>, port: u16) -> io::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let (answers, mut queue) = mpsc::channel::<Vec<u8>>(QUERIES_MAX);
    let writer = async move {
        while let Some(answer) = queue.recv().await {
            write.write_all(&framed(&answer)).await?;
        }
        Ok::<_, io::Error>(())
    };
    let slots = Arc::new(Semaphore::new(QUERIES_MAX));
    let reader = async move {
        let mut queries = tokio::task::JoinSet::new();
        loop {
            let length = match read.read_u16().await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                length => usize::from(length?),
            };
            if !(HEADER..=QUERY_MAX).contains(&length) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no DNS query"));
            }
            let mut query = vec![0; length];
            read.read_exact(&mut query).await?;
            let slot = Arc::clone(&slots).acquire_owned().await;
            let slot = slot.expect("the semaphore is never closed");
            while queries.try_join_next().is_some() {}
            let (answers, resolv_conf) = (answers.clone(), Arc::clone(&resolv_conf));
            queries.spawn(async move {
                let answer = answer(&query, &resolv_conf, port).await;
                // The guest may have gone meanwhile.
                let _gone = answers.send(answer).await;
                drop(slot);
            });
        }
        while queries.join_next().await.is_some() {}
        Ok(())
    };
    tokio::try_join!(reader, writer).map(|_| ())
}

/// Returns the answer to `query`: of the first server that gives one, else SERVFAIL.
async fn answer(query: &[u8], resolv_conf: &Path, port: u16) -> Vec<u8> {
    let text = tokio::fs::read_to_string(resolv_conf)
        .await
        .unwrap_or_default();
    let servers = servers(&text, port);
    let mut outgoing = query.to_vec();
    let mut last = None;
    for server in std::iter::repeat_n(&servers, ROUNDS).flatten() {
        if rustix::rand::getrandom(&mut outgoing[..2], rustix::rand::GetRandomFlags::empty())
            .is_err()
        {
            break;
        }
        match timeout(SERVER_DEADLINE, ask(*server, &outgoing)).await {
            // A server that failed may have a neighbour that does not.
            Ok(Ok(answer)) if is_server_failure(&answer) => last = Some(answer),
            Ok(Ok(answer)) => {
                last = Some(answer);
                break;
            }
            Ok(Err(error)) => tracing::debug!(%server, %error, "resolver does not answer"),
            Err(_) => tracing::debug!(%server, "resolver is silent"),
        }
    }
    let mut answer = last.unwrap_or_else(|| server_failure(query));
    answer[..2].copy_from_slice(&query[..2]);
    answer
}

/// Asks one server by UDP, and by TCP when the answer was cut off.
async fn ask(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let answer = loop {
        let count = socket.recv(&mut buffer).await?;
        // Anything that does not answer this query is not from the server we asked.
        if belongs(&buffer[..count], query) {
            break buffer[..count].to_vec();
        }
    };
    if !is_truncated(&answer) {
        return Ok(answer);
    }
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(query)).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if belongs(&answer, query) {
        Ok(answer)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "answer to another query",
        ))
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("messages come from 16-bit lengths");
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(message);
    frame
}

/// Returns whether `answer` is a response with the query's identifier.
fn belongs(answer: &[u8], query: &[u8]) -> bool {
    answer.len() >= HEADER && answer[..2] == query[..2] && answer[2] & 0x80 != 0
}

/// The TC bit.
fn is_truncated(answer: &[u8]) -> bool {
    answer[2] & 0x02 != 0
}

/// RCODE 2.
fn is_server_failure(answer: &[u8]) -> bool {
    answer[3] & 0x0f == 2
}

/// Returns the query turned into a response with RCODE 2 and no records but the question it had.
fn server_failure(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | 2;
    answer
}

/// Returns the servers that a resolv.conf names; the host itself when it names none (resolv.conf(5)).
fn servers(resolv_conf: &str, port: u16) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver"))
                .then(|| words.next())
                .flatten()
        })
        .filter_map(|address| parse(address, port))
        .take(SERVERS_MAX)
        .collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, port).into());
    }
    servers
}

/// Parses an address, with a scope when it is link-local (`fe80::1%eth0`).
fn parse(text: &str, port: u16) -> Option<SocketAddr> {
    let Some((address, scope)) = text.split_once('%') else {
        return Some((text.parse::<IpAddr>().ok()?, port).into());
    };
    let index = scope.parse().ok().or_else(|| {
        std::fs::read_to_string(Path::new("/sys/class/net").join(scope).join("ifindex"))
            .ok()?
            .trim()
            .parse()
            .ok()
    })?;
    Some(SocketAddrV6::new(address.parse().ok()?, port, 0, index).into())
}

#[cfg(test)]
mod tests;
