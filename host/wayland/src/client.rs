//! One program of the guest: its link, its own connection to the compositor, the filter between them.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use wayland::channel::{Notice, Shared};
use wayland::direct::Direct;
use wayland::frame::Frame;
use wayland::pipes;
use wayland::pool::PoolStore;
use wayland::session::{Session, SessionError, Side, error_event};
use wayland::socket;
use wayland::stream::{Rate, Settings, Stream, clock_ns};
use wl_proxy::baseline::Baseline;
use wl_proxy::object::ObjectCoreApi;
use wl_proxy::protocols::wayland::wl_callback::WlCallback;
use wl_proxy::protocols::wayland::wl_display::WlDisplayError;
use wl_proxy::state::State;

use crate::filter::{Context, DisplayHandler, audit_end};
use crate::vm::{Counted, Held, Vm};

/// After this many new objects the living ones are counted: often enough that a flood is caught,
/// seldom enough that it costs nothing.
const COUNT_EVERY: u64 = 16_384;

/// One connected program.
pub struct Client {
    session: Session,
    filter: Context,
    state: Rc<State>,
    counted_at: u64,
    _held: Held,
}

/// What one more program needs of the host.
#[derive(Debug)]
pub struct Place {
    held: Held,
    server: Rc<OwnedFd>,
}

impl Place {
    /// Takes a place for one more program of `vm` on the compositor at `compositor`.
    ///
    /// # Errors
    /// When the VM has too many or the compositor can't be reached.
    pub fn take(vm: &Rc<Vm>, compositor: &Path) -> anyhow::Result<Self> {
        let held = vm
            .hold(Counted::Client)
            .context("too many programs are connected")?;
        let server = UnixStream::connect(compositor).context("cannot reach the compositor")?;
        let server = Rc::new(OwnedFd::from(server));
        Ok(Self { held, server })
    }
}

/// Tells a program that has connected on `link` why it can't have windows.
pub fn refuse(link: &OwnedFd, vm: &str, why: &str) {
    let error = error_event(1, WlDisplayError::IMPLEMENTATION.0, why);
    let mut bytes = Vec::new();
    let hello = Frame::Hello {
        clock_ns: clock_ns(),
        label: vm,
    };
    for frame in [hello, Frame::Wayland(Vec::new(), &error), Frame::Goodbye] {
        frame.write(&mut bytes);
    }
    // A new connection has room for it; whoever is gone already needs no reason.
    let _ = socket::send_some(link, &bytes);
}

impl Client {
    /// Takes in a program that has connected on `link`; its windows go where it has a `place`.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new(vm: &Rc<Vm>, link: OwnedFd, place: Place, direct: bool) -> anyhow::Result<Self> {
        let Place { held, server } = place;
        let (channel, socket): (Shared, OwnedFd) = if direct {
            (Rc::new(RefCell::new(Direct)), link)
        } else {
            let (stream, socket) = Stream::new(link, settings(vm))?;
            (Rc::new(RefCell::new(stream)), socket)
        };
        let state = State::builder(Baseline::ALL_OF_THEM)
            .with_server_fd(&server)
            .build()
            .map_err(SessionError::from)?;
        let sockets = (&Rc::new(socket), &server);
        let session = Session::new(state.clone(), sockets, channel.clone(), Side::Host)?;
        let display = session.client().display().clone();
        let filter = Context::new(vm.clone(), channel, display.clone());
        display.set_handler(DisplayHandler(filter.clone()));
        Ok(Self {
            session,
            filter,
            state,
            counted_at: 0,
            _held: held,
        })
    }

    /// Returns the session, to wait for it.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Sends what is ready to go; to be called before waiting.
    pub fn prepare(&mut self) {
        let prepared = self.session.prepare();
        self.close_on_error(prepared);
    }

    /// Handles what `poll` said of the session.
    pub fn turn(&mut self, ready: &[rustix::event::PollFlags]) {
        let outcome = self.session.turn(ready).and_then(|notices| {
            for notice in notices {
                if let Notice::Transferred(transfer) = notice {
                    audit_end(&self.filter.vm, transfer);
                }
            }
            self.count_objects();
            self.filter
                .refused()
                .map_or(Ok(()), |why| Err(SessionError::Ended(why)))
        });
        self.close_on_error(outcome);
    }

    fn close_on_error(&mut self, outcome: Result<(), SessionError>) {
        if let Err(error) = outcome {
            let cause = &error as &(dyn std::error::Error + 'static);
            tracing::info!(vm = self.filter.vm.name, error = cause, "a connection ends");
            self.session.close(&error);
        }
    }

    /// Ends a program that keeps too many objects, which cost memory here whatever they are.
    fn count_objects(&mut self) {
        if self.state.is_destroyed() {
            return;
        }
        let newest = self.state.create_object::<WlCallback>(1).unique_id();
        if newest - self.counted_at > COUNT_EVERY {
            self.counted_at = newest;
            let mut objects = Vec::new();
            self.session.client().objects(&mut objects);
            if objects.len() > self.filter.vm.policy.limits.objects {
                let display = self.session.client().display().clone();
                self.filter.refuse(display, "too many objects");
            }
        }
    }

    /// Returns when the program has to be looked at even if nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }
}

fn settings(vm: &Vm) -> Settings {
    let clipboard = &vm.policy.clipboard;
    let limits = pipes::Limits {
        max_bytes: clipboard.max_bytes,
        stall: Duration::from_millis(clipboard.stall_ms),
    };
    Settings {
        pipes: limits,
        pools: Some(PoolStore::new(vm.budget.clone())),
        label: vm.name.chars().take(32).collect(),
        rate: Some(Rate::new(vm.policy.limits.message_bytes_per_s)),
        ..Settings::default()
    }
}
