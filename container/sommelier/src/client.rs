//! One Wayland client of the container: a thread, a link to the host, a wl-proxy state between them.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags};
use wayland::channel::{Notice, Shared};
use wayland::codec::Codec;
use wayland::direct::Direct;
use wayland::session::{Extras, Session, SessionError, Side};
use wayland::stream::{Settings, Stream};
use wl_proxy::baseline::Baseline;
use wl_proxy::client::Client;
use wl_proxy::protocols::wayland::wl_shm::WlShmError;
use wl_proxy::state::State;

use crate::globals::{Context, DisplayHandler};
use crate::link::Address;
use crate::refuse;
use crate::shm::Pools;
use crate::stats::{Registry, Stats};
use crate::surface::Surfaces;
use crate::xwm::bridge::Bridge;

/// What programs hear when nobody on the host listens; the words must do for someone who sees nothing else.
const NO_HOST: &str =
    "the host shows no windows: start testudo in a terminal of its Wayland desktop";

/// What every client's thread needs.
#[derive(Debug)]
pub(crate) struct Shop {
    /// Where the host end listens.
    pub(crate) host: Address,
    /// How pixels are packed.
    pub(crate) codec: Codec,
    /// Who is connected.
    pub(crate) clients: Registry,
}

/// A connection to the host, not yet running.
pub(crate) struct Connection {
    /// The state; its client is not yet added.
    pub(crate) state: Rc<State>,
    /// The way to the host.
    pub(crate) channel: Shared,
    /// The socket that the state has as its server.
    pub(crate) server: Rc<OwnedFd>,
}

impl Connection {
    /// Connects to the host as `label`.
    ///
    /// # Errors
    /// When nobody answers there.
    pub(crate) fn open(shop: &Shop, label: &str) -> anyhow::Result<Self> {
        let link = shop.host.connect().context(NO_HOST)?;
        let (channel, server): (Shared, OwnedFd) = if matches!(shop.host, Address::Direct(_)) {
            (Rc::new(std::cell::RefCell::new(Direct)), link)
        } else {
            let label = label.chars().filter(|c| !c.is_control()).take(16).collect();
            let settings = Settings {
                codec: shop.codec,
                label,
                ..Settings::default()
            };
            let (stream, server) = Stream::new(link, settings)?;
            (Rc::new(std::cell::RefCell::new(stream)), server)
        };
        let server = Rc::new(server);
        let state = State::builder(Baseline::ALL_OF_THEM)
            .with_server_fd(&server)
            .build()
            .map_err(SessionError::from)?;
        Ok(Self {
            state,
            channel,
            server,
        })
    }

    /// Returns what the handlers of this connection share; `bridge` leads to the window manager if
    /// the client is Xwayland.
    #[must_use]
    pub(crate) fn context(&self, stats: Stats, bridge: Option<Rc<Bridge>>) -> Context {
        let channel = self.channel.clone();
        let pools = Pools::new(channel.clone());
        let surfaces = Surfaces::new(channel.clone(), stats, bridge.clone());
        Context {
            channel,
            pools,
            surfaces,
            bridge,
        }
    }
}

/// Serves one client until it leaves.
///
/// # Errors
/// When the host can't be reached or the connection breaks.
pub(crate) fn serve(shop: &Arc<Shop>, socket: OwnedFd) -> anyhow::Result<()> {
    let (pid, name) = peer(&socket);
    let connection = match Connection::open(shop, &name) {
        Ok(connection) => connection,
        Err(error) => {
            refuse::wayland(&socket, &error);
            return Err(error);
        }
    };
    let stats = shop.clients.add(pid, name);
    let context = connection.context(stats.clone(), None);
    let sockets = (&Rc::new(socket), &connection.server);
    let channel = connection.channel.clone();
    let session = Session::new(connection.state, sockets, channel, Side::Guest)?;
    session
        .client()
        .display()
        .set_handler(DisplayHandler(context.clone()));
    let mut keeper = Keeper::new(context, session.client().clone(), stats.clone());
    let outcome = session.run(&mut keeper);
    shop.clients.remove(&stats);
    outcome.context("connection lost")
}

/// What a client's session does beside passing messages on.
pub(crate) struct Keeper {
    context: Context,
    client: Rc<Client>,
    stats: Stats,
}

impl Keeper {
    /// Returns the keeper of `client`.
    #[must_use]
    pub(crate) fn new(context: Context, client: Rc<Client>, stats: Stats) -> Self {
        Self {
            context,
            client,
            stats,
        }
    }
}

impl Extras for Keeper {
    fn interest<'a>(&'a self, _fds: &mut Vec<PollFd<'a>>) {}

    fn handle(&mut self, _ready: &[PollFlags], notices: &[Notice]) -> Result<(), SessionError> {
        self.context.surfaces.release_held();
        if let Some(trip) = self.context.channel.borrow().status().round_trip {
            self.stats.round_trip(trip);
        }
        for notice in notices {
            if let Notice::Truncated(pool) = notice
                && let Some(buffer) = self.context.pools.buffer_of(*pool)
            {
                // What libwayland does when it meets the SIGBUS that a mapping would have got here.
                let code = WlShmError::INVALID_FD.0;
                self.client
                    .display()
                    .send_error(buffer, code, "error accessing SHM buffer");
            }
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

fn peer(socket: &OwnedFd) -> (i32, String) {
    let Ok(credentials) = rustix::net::sockopt::socket_peercred(socket) else {
        return (0, String::new());
    };
    let pid = credentials.pid.as_raw_nonzero().get();
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    (pid, name.trim().to_owned())
}
