//! Starts Xwayland when the first X program connects, and runs the session between it, the window
//! manager and the host. When the server ends, the sockets wait for the next program.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags};
use wayland::channel::Notice;
use wayland::session::{Extras, Session, SessionError, Side};
use x11rb::rust_connection::{DefaultStream, RustConnection};

use crate::client::{Connection, Keeper, Shop};
use crate::globals::DisplayHandler;
use crate::refuse;
use crate::xwm::bridge::Bridge;
use crate::xwm::scale::Scale;
use crate::xwm::{Xwm, own};

/// How long Xwayland may take to answer its manager.
const START: Duration = Duration::from_secs(20);

/// How long Xwayland stays once its last program has gone, in seconds.
const LINGER_S: &str = "10";

/// How long to wait before Xwayland is started again after it has failed, so that a program that
/// connects in a loop does not start it in a loop.
const PAUSE: Duration = Duration::from_secs(2);

/// What installs Xwayland, by the program that a distribution installs packages with.
const INSTALLERS: &[(&str, &str)] = &[
    (
        "usr/bin/apt-get",
        "sudo apt-get install --no-install-recommends xwayland",
    ),
    ("usr/bin/dnf", "sudo dnf install xorg-x11-server-Xwayland"),
    ("usr/bin/zypper", "sudo zypper install xwayland"),
    ("usr/bin/pacman", "sudo pacman -S xorg-xwayland"),
    ("sbin/apk", "sudo apk add xwayland"),
];

/// The X display of the container.
pub(crate) struct Display {
    /// Its number.
    pub(crate) number: u32,
    /// The sockets on which programs connect.
    pub(crate) sockets: Vec<OwnedFd>,
    /// X pixels for each unit of the compositor; without it, as many as the sharpest screen has.
    pub(crate) scale: Option<f64>,
    /// The X server's program.
    pub(crate) program: String,
}

/// Serves X programs until the sockets fail.
///
/// # Errors
/// When the kernel refuses to wait.
pub(crate) fn serve(shop: &Arc<Shop>, display: &Display) -> anyhow::Result<()> {
    loop {
        let mut fds: Vec<_> = display
            .sockets
            .iter()
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        rustix::event::poll(&mut fds, None).context("cannot wait for x programs")?;
        drop(fds);
        let started = Instant::now();
        // Without a host there is no need to start a server that ends at once.
        match Connection::open(shop, "Xwayland") {
            Err(error) => {
                refuse::x(&display.sockets, &error);
                continue;
            }
            Ok(connection) => {
                if let Err(error) = run_once(shop, display, connection) {
                    tracing::warn!("x session: {error:#}");
                    refuse::x(&display.sockets, &error);
                }
            }
        }
        // poll with no descriptors is a sleep that signals can end.
        let rest = PAUSE.saturating_sub(started.elapsed());
        let rest = rustix::event::Timespec::try_from(rest).unwrap_or_default();
        let _ = rustix::event::poll(&mut [], Some(&rest));
    }
}

fn run_once(shop: &Shop, display: &Display, connection: Connection) -> anyhow::Result<()> {
    let (ours, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
    let (manager, server) = UnixStream::pair().context("cannot make a socket pair")?;
    ours.set_nonblocking(true)
        .context("cannot prepare a socket")?;
    let mut child = start(display, theirs.into(), server.into())?;
    let outcome = run_session(shop, display.scale, connection, (ours.into(), manager));
    // An X server without its manager shows nothing.
    let _ = child.kill();
    let _ = child.wait();
    outcome
}

fn start(display: &Display, wayland: OwnedFd, manager: OwnedFd) -> anyhow::Result<Child> {
    let mut command = Command::new(&display.program);
    command
        .arg(format!(":{}", display.number))
        .args(["-rootless", "-terminate", LINGER_S])
        // The host is sent pixels in any case; without this a container needs EGL only to be told so.
        .arg("-shm");
    command.arg("-wm").arg(manager.as_raw_fd().to_string());
    let mut kept = Vec::new();
    for socket in &display.sockets {
        let socket = socket.try_clone().context("cannot share an x socket")?;
        command.arg("-listenfd").arg(socket.as_raw_fd().to_string());
        kept.push(socket);
    }
    command.env("WAYLAND_SOCKET", wayland.as_raw_fd().to_string());
    kept.extend([wayland, manager]);
    sys::spawn::tie(&mut command, kept);
    command.spawn().map_err(|error| {
        // Programs hear this: what to do about it comes first.
        let line = line_to_type(Path::new("/"));
        anyhow::anyhow!("{line} (cannot start {}: {error})", display.program)
    })
}

/// Returns what to do about a missing X server in the distribution whose root directory this is.
fn line_to_type(root: &Path) -> String {
    let known = INSTALLERS
        .iter()
        .find(|(program, _)| root.join(program).exists());
    match known {
        Some((_, line)) => format!("X programs need an X server; type in the container: {line}"),
        None => "X programs need an X server: install Xwayland in the container".to_owned(),
    }
}

fn run_session(
    shop: &Shop,
    scale: Option<f64>,
    connection: Connection,
    (socket, manager): (OwnedFd, UnixStream),
) -> anyhow::Result<()> {
    let stats = shop.clients.add(0, "Xwayland".to_owned());
    let bridge = Bridge::new(Scale::new(scale));
    let context = connection.context(stats.clone(), Some(bridge.clone()));
    let own = own::collect(&connection.state, &bridge);
    let sockets = (&Rc::new(socket), &connection.server);
    let session = Session::new(connection.state, sockets, connection.channel, Side::Guest)?;
    session
        .client()
        .display()
        .set_handler(DisplayHandler(context.clone()));
    let client = session.client().clone();
    let (ready, greeted) = greet(manager)?;
    let mut extras = XExtras {
        wayland: context.channel.clone(),
        keeper: Keeper::new(context, client, stats.clone()),
        manager: Manager::Starting(ready, greeted, Instant::now() + START),
        bridge,
        own,
    };
    let outcome = session.run(&mut extras);
    shop.clients.remove(&stats);
    outcome.context("x session lost")
}

/// Connects to the server as its manager, on a thread of its own: the server answers only while its
/// Wayland connection is served here. The descriptor becomes readable when it has.
fn greet(
    stream: UnixStream,
) -> anyhow::Result<(OwnedFd, Receiver<anyhow::Result<RustConnection>>)> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name("x-greeting".into())
        .spawn(move || {
            let connect = || -> anyhow::Result<RustConnection> {
                let (stream, _) = DefaultStream::from_unix_stream(stream)?;
                Ok(RustConnection::connect_to_stream(stream, 0)?)
            };
            // If nobody listens any more, the session is over already.
            let _ = sender.send(connect());
            drop(writer);
        })?;
    Ok((reader.into(), receiver))
}

enum Manager {
    Starting(OwnedFd, Receiver<anyhow::Result<RustConnection>>, Instant),
    Running(Box<Xwm>),
}

struct XExtras {
    keeper: Keeper,
    manager: Manager,
    bridge: Rc<Bridge>,
    own: own::Shared,
    wayland: wayland::channel::Shared,
}

impl Extras for XExtras {
    fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        match &self.manager {
            Manager::Starting(ready, ..) => fds.push(PollFd::new(ready, PollFlags::IN)),
            Manager::Running(manager) => manager.interest(fds),
        }
    }

    fn handle(&mut self, ready: &[PollFlags], notices: &[Notice]) -> Result<(), SessionError> {
        self.keeper.handle(ready, notices)?;
        if let Manager::Starting(_, greeted, until) = &self.manager {
            if let Ok(connected) = greeted.try_recv() {
                let connected = connected.map_err(|error| lost(&error))?;
                let xwm = Xwm::new(
                    connected,
                    self.bridge.clone(),
                    self.own.clone(),
                    self.wayland.clone(),
                );
                self.manager =
                    Manager::Running(Box::new(xwm.map_err(|error| lost(&error.into()))?));
            } else if Instant::now() > *until {
                return Err(SessionError::Ended("the x server does not answer"));
            }
        }
        match &mut self.manager {
            Manager::Starting(..) => Ok(()),
            Manager::Running(manager) => manager.handle().map_err(|error| lost(&error.into())),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.manager {
            Manager::Starting(_, _, until) => Some(*until),
            Manager::Running(_) => None,
        }
    }
}

fn lost(error: &anyhow::Error) -> SessionError {
    tracing::warn!("window manager: {error:#}");
    SessionError::Ended("the x window manager failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_type_is_the_distributions_own() {
        let root = tempfile::tempdir().unwrap();
        let without = line_to_type(root.path());
        assert!(without.ends_with("install Xwayland in the container"));
        std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        std::fs::write(root.path().join("usr/bin/pacman"), "").unwrap();
        let line = line_to_type(root.path());
        assert!(line.ends_with("sudo pacman -S xorg-xwayland"), "{line}");
    }
}
