//! How a client on the host reaches the daemon, starting it when nobody serves its socket.
//!
//! Where systemd's user manager listens on the socket, connecting is enough. Elsewhere the client starts
//! `concierge --detached`, which lies beside it, and waits for what that writes to its standard output: the line
//! `ready`, or an encoded [`Fault`]. Clients that start it at once take turns behind the lock
//! `concierge.start`; the daemon itself holds `concierge.lock`, so that two of them can never serve.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use prost::Message;
use rustix::fs::{FlockOperation, flock};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;
use tonic::transport::Channel;
use wire::proto::daemon_client::DaemonClient;
use wire::proto::{Empty, VersionReply};
use wire::{Fault, Kind, proto};

use crate::places::{Places, sibling};
use crate::request::Tag;
use crate::unix;

/// What the daemon writes once its socket answers.
pub const READY: &[u8] = b"ready\n";

/// The option with which clients start the daemon.
pub const DETACHED: &str = "--detached";

/// Longest time from start to `ready`: it includes an older daemon that is just ending.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Longest time for a daemon that accepted the connection to say its version.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Most bytes read from the daemon's standard output; a fault with its causes is below 4 KiB.
const OUTPUT_MAX: u64 = 64 << 10;

/// A daemon log longer than this is put aside when the next daemon starts; the one before it is dropped.
const LOG_MAX: u64 = 4 << 20;

/// How often a daemon may end between accepting the connection and answering before we give up.
const ATTEMPTS: usize = 3;

/// Returns a channel to the running daemon, and what it said of itself; starts it when it does not run.
///
/// # Errors
/// When it cannot be started, does not answer, or speaks another version of the wire.
pub async fn connect_or_start(places: &Places) -> Result<(Channel, VersionReply), Fault> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let channel = match unix::connect(&places.socket()).await {
            Ok(channel) => channel,
            Err(error) if is_absent(&error) => start(places).await?,
            Err(error) => return Err(unreachable(places).because(&error)),
        };
        match version(channel.clone()).await {
            Ok(version) => return Ok((channel, version)),
            Err(fault) if fault.kind() == Kind::Unreachable => last = Some(fault),
            Err(fault) => return Err(fault),
        }
    }
    Err(last.expect("every attempt that did not return left its fault"))
}

/// Returns a channel to the daemon if it runs, without starting it.
///
/// # Errors
/// When something answers that is not a daemon of this version.
pub async fn connect(places: &Places) -> Result<Option<(Channel, VersionReply)>, Fault> {
    match unix::connect(&places.socket()).await {
        Ok(channel) => Ok(Some((channel.clone(), version(channel).await?))),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(unreachable(places).because(&error)),
    }
}

async fn version(channel: Channel) -> Result<VersionReply, Fault> {
    let mut client = DaemonClient::with_interceptor(channel, Tag::new());
    match timeout(ANSWER_DEADLINE, client.version(Empty {})).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Fault::new(
            Kind::Unreachable,
            "E-DAEMON-SILENT",
            "the daemon accepted the connection but does not answer",
        )
        .hint("see its log; to end it: testudo shutdown")),
    }
}

async fn start(places: &Places) -> Result<Channel, Fault> {
    let failed = || {
        Fault::new(
            Kind::Internal,
            "E-DAEMON-START",
            "cannot start the daemon concierge",
        )
        .hint(format!("its log is {}", places.daemon_log().display()))
    };
    places
        .prepare_runtime()
        .map_err(|error| failed().because(&error))?;
    let turn = take_turn(places)
        .await
        .map_err(|error| failed().because(&error))?;
    if let Ok(channel) = unix::connect(&places.socket()).await {
        return Ok(channel);
    }
    let said = run(places)
        .await
        .map_err(|error| failed().because(&error))?;
    if said != READY {
        return Err(match proto::Fault::decode(said.as_slice()) {
            Ok(fault) if !fault.message.is_empty() => {
                Fault::from(fault).while_doing("cannot start the daemon concierge")
            }
            _ => failed().cause("it ended without a word"),
        });
    }
    drop(turn);
    unix::connect(&places.socket())
        .await
        .map_err(|error| unreachable(places).because(&error))
}

/// Waits until no other client is starting the daemon.
async fn take_turn(places: &Places) -> io::Result<File> {
    let path = places.runtime().join("concierge.start");
    let wait = tokio::task::spawn_blocking(move || {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    });
    match timeout(START_DEADLINE, wait).await {
        Ok(turn) => turn.map_err(io::Error::other)?,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "another client has been starting it for 20 s",
        )),
    }
}

/// Starts the daemon and returns what it said, which ends with `ready` or with the daemon.
async fn run(places: &Places) -> io::Result<Vec<u8>> {
    std::fs::create_dir_all(places.state())?;
    if std::fs::metadata(places.daemon_log()).is_ok_and(|log| log.len() > LOG_MAX) {
        std::fs::rename(
            places.daemon_log(),
            places.daemon_log().with_extension("log.1"),
        )?;
    }
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(places.daemon_log())?;
    let mut daemon = Command::new(sibling("concierge")?)
        .arg(DETACHED)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut output = daemon.stdout.take().expect("standard output is piped");
    let mut said = Vec::new();
    let listen = async {
        let mut output = (&mut output).take(OUTPUT_MAX);
        output.read_to_end(&mut said).await
    };
    match timeout(START_DEADLINE, listen).await {
        Ok(read) => read?,
        Err(_) => {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it was not ready within 20 s",
            ));
        }
    };
    Ok(said)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn unreachable(places: &Places) -> Fault {
    let message = format!("cannot reach the daemon at {}", places.socket().display());
    Fault::new(Kind::Unreachable, "E-DAEMON", message)
}
