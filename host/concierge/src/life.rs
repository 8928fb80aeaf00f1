//! The daemon's own life on the host: one at a time, ready, serving, and the five ways to end.
//!
//! It ends when a client says so, on SIGTERM or SIGINT, when its socket is removed (the user logged out: the runtime
//! folder goes), and when for a while there was neither a client nor a running VM. In all of these VMs are stopped
//! politely first. The fifth is SIGKILL: the kernel then kills the children, and the next daemon cleans up.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::config::Config;
use link::places::Places;
use rustix::fs::{FlockOperation, flock, inotify};
use sys::inherited;
use tokio::net::UnixListener;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use wire::proto::containers_server::ContainersServer;
use wire::proto::daemon_server::DaemonServer;
use wire::proto::vms_server::VmsServer;
use wire::{Fault, Kind};

use crate::engine::qemu;
use crate::guest::clock;
use crate::peers::{Count, Incoming};
use crate::serve;
use crate::vm::Vms;
use crate::world::World;

/// How long a daemon without clients and running VMs stays, when the user does not say.
const IDLE_DEFAULT: Duration = Duration::from_secs(60);

/// Longest wait for an earlier daemon that is ending.
const LOCK_DEADLINE: Duration = Duration::from_secs(15);

/// How often the lock is tried meanwhile.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// How long clients that still listen are waited for at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// What logs say in place of a request's id where nobody asked.
const NO_REQUEST: &str = "-";

/// The first descriptor that systemd passes (sd_listen_fds(3)).
const LISTEN_FDS_START: i32 = 3;

/// Lives until one of the ends.
///
/// # Errors
/// When it cannot begin: bad settings, no home, no socket.
pub(crate) async fn live(detached: bool) -> Result<(), Fault> {
    if detached {
        // Leaves the client's session, so that its Ctrl-C and hangup are not ours.
        rustix::process::setsid().map_err(|error| cannot("leave the session", &error.into()))?;
    }
    let places = Places::of_user().map_err(|error| Fault::internal(&error))?;
    let config = Config::load(&places)?;
    places.prepare_runtime().map_err(|error| {
        Fault::new(
            Kind::Denied,
            "E-RUNTIME-FOLDER",
            "cannot use the runtime folder",
        )
        .because(&error)
    })?;
    qemu::prepare();
    let passed = passed_by_systemd().map_err(|error| cannot("take systemd's socket", &error))?;
    let Some(_lock) = take_lock(&places, passed.is_some()).await? else {
        return announce().map_err(|error| cannot("say that it is ready", &error));
    };
    let own = passed.is_none();
    let listener = match passed {
        Some(listener) => Ok(listener),
        None => link::unix::listen(&places.socket()),
    };
    let listener = listener.map_err(|error| cannot("listen on its socket", &error))?;
    for folder in [places.sockets(), places.displays()] {
        remove_sockets(&folder);
    }
    let idle = config
        .idle_seconds
        .map_or(IDLE_DEFAULT, Duration::from_secs);
    let world =
        World::new(places.clone(), config).map_err(|error| cannot("find its programs", &error))?;
    let vms = Vms::new(Arc::new(world));
    let mut signals = Signals::new().map_err(|error| cannot("listen to signals", &error))?;
    announce().map_err(|error| cannot("say that it is ready", &error))?;
    tracing::info!(socket = %places.socket().display(), "ready");

    let (count, end) = (Count::default(), CancellationToken::new());
    let serving = serve_clients(Incoming::new(listener, count.clone()), &vms, &end);
    tokio::pin!(serving);
    let socket = places.socket();
    let why = tokio::select! {
        served = &mut serving => return served.map_err(|error| Fault::internal(&error)),
        () = end.cancelled() => "asked by a client",
        () = signals.next() => "signal",
        () = idleness(&vms, &count, idle) => "idle",
        () = removal(&socket), if own => "its socket was removed",
        () = follow_clock(&vms) => "clock",
    };
    tracing::info!(why, "ending");
    // Before the VMs, so that a client that comes now starts the next daemon instead of hearing a refusal.
    if own {
        let _gone = std::fs::remove_file(places.socket());
    }
    let served = stop_beside(&mut serving, &vms, &mut signals).await;
    end.cancel();
    if !served {
        let _unheard = timeout(FAREWELL, serving).await;
    }
    Ok(())
}

/// Stops all VMs while clients are still served, so that they hear how it goes; a second signal ends the wait. Returns
/// whether serving has ended meanwhile.
async fn stop_beside(
    serving: &mut (impl Future + Unpin),
    vms: &Vms,
    signals: &mut Signals,
) -> bool {
    let mut served = false;
    let stopped = serve::daemon::stop_all(vms, NO_REQUEST);
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => return served,
            _ = &mut *serving, if !served => served = true,
            () = signals.next() => {
                tracing::warn!("second signal: VMs are killed");
                return served;
            }
        }
    }
}

/// Serves clients until `end`.
async fn serve_clients(
    incoming: Incoming,
    vms: &Vms,
    end: &CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let daemon = serve::daemon::Service {
        vms: vms.clone(),
        end: end.clone(),
    };
    let check = link::request::same_protocol;
    let limit = link::MESSAGE_MAX;
    let vms_service =
        VmsServer::new(serve::vms::Service(vms.clone())).max_decoding_message_size(limit);
    let containers = ContainersServer::new(serve::containers::Service(vms.clone()))
        .max_decoding_message_size(limit);
    Server::builder()
        .trace_fn(|request| {
            let id = request.headers().get(wire::REQUEST_METADATA);
            let id = id.and_then(|id| id.to_str().ok()).unwrap_or("-");
            tracing::info_span!("request", id, call = request.uri().path())
        })
        .add_service(InterceptedService::new(DaemonServer::new(daemon), check))
        .add_service(InterceptedService::new(vms_service, check))
        .add_service(InterceptedService::new(containers, check))
        .serve_with_incoming_shutdown(incoming, end.cancelled())
        .await
}

/// Takes the lock that one daemon holds; `None` when another one serves the socket already.
async fn take_lock(places: &Places, activated: bool) -> Result<Option<File>, Fault> {
    let open = || {
        let mut options = OpenOptions::new();
        options
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(places.lock())
    };
    let file = open().map_err(|error| cannot("open its lock", &error))?;
    let deadline = Instant::now() + LOCK_DEADLINE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {}
            Err(error) => {
                return Err(Fault::new(
                    Kind::Busy,
                    "E-DAEMON-LOCKED",
                    "another concierge holds the lock",
                )
                .because(&io::Error::from(error))
                .hint("end it with SIGTERM and try again"));
            }
        }
        // Under systemd the socket leads to ourselves.
        if !activated && std::os::unix::net::UnixStream::connect(places.socket()).is_ok() {
            return Ok(None);
        }
        sleep(LOCK_INTERVAL).await;
    }
}

/// Returns the listening socket that systemd passed, if it passed one to this process.
fn passed_by_systemd() -> io::Result<Option<UnixListener>> {
    let ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    if !ours || std::env::var("LISTEN_FDS").is_ok_and(|count| count == "0") {
        return Ok(None);
    }
    let socket =
        inherited::take(LISTEN_FDS_START, inherited::Kind::Listening).map_err(io::Error::other)?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener).map(Some)
}

/// Tells the client that started us that the socket answers, and lets go of its pipe.
fn announce() -> io::Result<()> {
    let mut output = io::stdout();
    // A client that was interrupted is no reason to end.
    let _heard = output
        .write_all(link::daemon::READY)
        .and_then(|()| output.flush());
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}

/// Removes the sockets of VMs that ended with an earlier daemon.
fn remove_sockets(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %folder.display(), %error, "cannot remove stale sockets");
        }
        _ => {}
    }
}

/// SIGTERM and SIGINT, heard from the moment this is made.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for either.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Waits until there was neither a client nor a VM at work for `idle`.
async fn idleness(vms: &Vms, count: &Count, idle: Duration) {
    /// How often it is looked at, in parts of the whole time.
    const LOOKS: u32 = 4;
    let mut quiet_since = Instant::now();
    let mut seen = count.ever();
    loop {
        sleep((idle / LOOKS).max(Duration::from_millis(50))).await;
        if count.now() > 0 || count.ever() != seen || vms.active() {
            seen = count.ever();
            quiet_since = Instant::now();
        }
        if quiet_since.elapsed() >= idle {
            return;
        }
    }
}

/// Waits until the socket's folder or the socket is removed. Without a watch, that is never noticed.
async fn removal(socket: &Path) {
    let watch = || -> io::Result<_> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags)?;
        let gone = inotify::WatchFlags::DELETE_SELF | inotify::WatchFlags::ATTRIB;
        inotify::add_watch(&watch, socket, gone)?;
        // A queue of events is read like a pipe; tokio's type for one is its only safe one for other readers.
        pipe::Receiver::from_owned_fd_unchecked(watch)
    };
    let watch = match watch() {
        Ok(watch) => watch,
        // Between listening and here it may have gone already.
        Err(_) if !socket.exists() => return,
        Err(error) => {
            tracing::warn!(%error, "cannot watch the socket");
            return std::future::pending().await;
        }
    };
    while socket.exists() {
        if watch.readable().await.is_err() {
            return std::future::pending().await;
        }
        // The events say nothing that `exists` does not; they are read so that the queue is silent again.
        let _events = watch.try_read(&mut [0; 4096]);
    }
}

/// Tells guests the time whenever the host's clock jumps.
async fn follow_clock(vms: &Vms) {
    while let Ok(()) = clock::changed().await {
        for name in vms.names() {
            if let Ok(running) = vms.running(&name) {
                tokio::spawn(async move {
                    if let Err(fault) = running.agent.set_time().await {
                        tracing::warn!(vm = %name, %fault, "cannot set the guest's time");
                    }
                });
            }
        }
    }
    std::future::pending::<()>().await;
}

fn cannot(act: &str, error: &io::Error) -> Fault {
    Fault::new(
        Kind::Internal,
        "E-DAEMON-START",
        format!("concierge cannot {act}"),
    )
    .because(error)
}
