//! The X window manager of the container: X programs run on a rootless Xwayland, and each of their
//! windows becomes a Wayland window or popup.
//!
//! ```text
//!  X program ── Xwayland ── Wayland: surfaces, input ──▶ session ──▶ host
//!                   └────── X11: what the windows are ──▶ this, on the session's thread
//! ```
//! Both ways meet in a window's surface: Xwayland names it by a serial (xwayland-shell, since 23.1) or
//! by its number (older ones). Positions mean nothing to Wayland, so every window with a frame is at
//! the origin of the X world, and menus are placed relative to it.

mod atoms;
pub(crate) mod bridge;
mod clients;
mod events;
mod incoming;
mod offers;
mod outgoing;
pub(crate) mod own;
mod properties;
pub(crate) mod scale;
mod selection;
mod setup;
mod show;
mod types;
mod window;

use std::collections::HashMap;
use std::rc::Rc;

use rustix::event::PollFd;
use thiserror::Error;
use wayland::channel::Shared;
use x11rb::connection::Connection;
use x11rb::errors::{ConnectError, ConnectionError, ReplyError, ReplyOrIdError};
use x11rb::rust_connection::RustConnection;

use self::atoms::Atoms;
use self::bridge::{Bridge, Happening, WindowId};
use self::selection::Selections;
use self::window::Window;

/// What the X server does not let us do.
#[derive(Debug, Error)]
pub(crate) enum XwmError {
    /// There is no server, or it does not take us as its manager.
    #[error("cannot connect to the x server")]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error("connection to the x server failed")]
    Connection(#[from] ConnectionError),
    /// A request that must succeed did not.
    #[error("the x server refused a request")]
    Refused(#[from] ReplyError),
    /// No numbers left.
    #[error("the x server gave no number")]
    Number(#[from] ReplyOrIdError),
}

/// The window manager of one X server.
pub(crate) struct Xwm {
    x: Rc<RustConnection>,
    atoms: Rc<Atoms>,
    root: WindowId,
    /// A window of our own that stands for the manager.
    manager: WindowId,
    windows: HashMap<WindowId, Window>,
    focus: Option<WindowId>,
    /// The window that last had the focus; menus without a parent belong to it.
    last_focus: Option<WindowId>,
    bridge: Rc<Bridge>,
    own: own::Shared,
    selections: Selections,
}

impl Xwm {
    /// Takes the server behind `x` over.
    ///
    /// # Errors
    /// When the server does not allow it.
    pub(crate) fn new(
        x: RustConnection,
        bridge: Rc<Bridge>,
        own: own::Shared,
        channel: Shared,
    ) -> Result<Self, XwmError> {
        let x = Rc::new(x);
        let atoms = Rc::new(Atoms::new(&*x)?.reply()?);
        let root = x.setup().roots[0].root;
        let manager = setup::take_over(&x, &atoms, root, bridge.scale.factor())?;
        let selections = Selections::new(x.clone(), atoms.clone(), channel, bridge.clone(), root)?;
        Ok(Self {
            x,
            atoms,
            root,
            manager,
            windows: HashMap::new(),
            focus: None,
            last_focus: None,
            bridge,
            own,
            selections,
        })
    }

    /// Adds what the manager waits for to `fds`.
    pub(crate) fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(self.x.stream(), rustix::event::PollFlags::IN));
        self.selections.interest(fds);
    }

    /// Handles everything that has happened on either side.
    ///
    /// # Errors
    /// When the X server is gone.
    pub(crate) fn handle(&mut self) -> Result<(), XwmError> {
        self.selections.service()?;
        // Whatever writes to the server may also read from it, and leave events in the library's
        // buffer that no descriptor tells of. So the last thing before waiting is to find that empty.
        loop {
            if let Some(happening) = self.bridge.next() {
                self.handle_happening(happening)?;
                continue;
            }
            // What X programs have copied in the meantime becomes the host's selection.
            self.selections.connect(&self.own.borrow());
            self.x.flush()?;
            let Some(event) = self.x.poll_for_event()? else {
                break;
            };
            self.handle_event(&event)?;
        }
        Ok(())
    }

    fn handle_happening(&mut self, happening: Happening) -> Result<(), XwmError> {
        match happening {
            Happening::Associated(serial) => self.associate_serial(serial),
            Happening::Created(number) => self.associate_created(number),
            Happening::Proposed(id, width, height, states) => {
                self.propose(id, (width, height), &states)
            }
            Happening::Configured(id, serial) => {
                self.acknowledge(id, serial);
                Ok(())
            }
            Happening::CloseAsked(id) => self.close(id),
            Happening::Dismissed(id) => {
                self.dismiss(id);
                Ok(())
            }
            Happening::Offered(kind, offer) => self.selections.offered(kind, offer),
            Happening::Wanted(kind, mime_type, fd) => self.selections.wanted(kind, &mime_type, &fd),
            Happening::Replaced(kind) => {
                self.selections.replaced(kind);
                Ok(())
            }
        }
    }
}
