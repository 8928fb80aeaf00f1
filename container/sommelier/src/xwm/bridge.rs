//! What the Wayland side of the X session tells the window manager, in the container.
//!
//! Handlers of Wayland objects run inside wl-proxy's dispatch and must not wait for the X server. So they
//! note what happened here, and the window manager reads the notes right after the dispatch.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use wl_proxy::fixed::Fixed;
use wl_proxy::object::ObjectCoreApi;
use wl_proxy::protocols::viewporter::wp_viewporter::WpViewporter;
use wl_proxy::protocols::wayland::wl_keyboard::{
    WlKeyboard, WlKeyboardHandler, WlKeyboardKeyState,
};
use wl_proxy::protocols::wayland::wl_pointer::{WlPointer, WlPointerButtonState, WlPointerHandler};
use wl_proxy::protocols::wayland::wl_seat::{WlSeat, WlSeatHandler};
use wl_proxy::protocols::wayland::wl_surface::WlSurface;
use wl_proxy::protocols::wayland::wl_touch::WlTouch;
use wl_proxy::protocols::xdg_shell::xdg_popup::{XdgPopup, XdgPopupHandler};
use wl_proxy::protocols::xdg_shell::xdg_surface::{XdgSurface, XdgSurfaceHandler};
use wl_proxy::protocols::xdg_shell::xdg_toplevel::{XdgToplevel, XdgToplevelHandler};
use wl_proxy::protocols::xwayland_shell_v1::xwayland_shell_v1::{
    XwaylandShellV1, XwaylandShellV1Handler,
};
use wl_proxy::protocols::xwayland_shell_v1::xwayland_surface_v1::{
    XwaylandSurfaceV1, XwaylandSurfaceV1Handler,
};

use super::offers::Offer;
use super::scale::{Converter, Scale};
use super::selection::Kind;
use super::window::Role;
use crate::surface::with_surface;

/// An X window, by its number.
pub(crate) type WindowId = u32;

/// Something the window manager is to act on.
pub(crate) enum Happening {
    /// A surface has said which X window it shows, by the serial of xwayland-shell.
    Associated(u64),
    /// Xwayland has made the surface with this number.
    Created(u32),
    /// The compositor proposes a size (zero for "as you like") and states to a window.
    Proposed(WindowId, i32, i32, Vec<u32>),
    /// The compositor wants its last proposal acknowledged.
    Configured(WindowId, u32),
    /// The user closes a window.
    CloseAsked(WindowId),
    /// The compositor has taken a popup away.
    Dismissed(WindowId),
    /// The host has a new selection, or none.
    Offered(Kind, Option<Rc<Offer>>),
    /// Somebody on the Wayland side wants our selection's data.
    Wanted(Kind, String, Rc<OwnedFd>),
    /// Our selection has been replaced.
    Replaced(Kind),
}

/// What both sides share.
pub(crate) struct Bridge {
    happenings: RefCell<VecDeque<Happening>>,
    /// Surfaces of xwayland-shell by serial, not yet matched.
    by_serial: RefCell<HashMap<u64, Rc<WlSurface>>>,
    /// Every living surface by the number Xwayland gives it, for servers before 23.1.
    by_number: RefCell<HashMap<u32, Rc<WlSurface>>>,
    /// The roles of living surfaces, by the surface's number in the session.
    roles: RefCell<HashMap<u64, Weak<Role>>>,
    /// The seat Xwayland uses.
    pub(crate) seat: RefCell<Option<Rc<WlSeat>>>,
    /// X pixels for each unit of the compositor.
    pub(crate) scale: Rc<Scale>,
    viewporter: RefCell<Option<Rc<WpViewporter>>>,
    /// The serial of the last key, button or focus, which requests must carry.
    pub(crate) serial: Cell<u32>,
}

impl Bridge {
    /// Returns the bridge of a new X session, whose world is larger than the compositor's by `scale`.
    #[must_use]
    pub(crate) fn new(scale: Rc<Scale>) -> Rc<Self> {
        Rc::new(Self {
            happenings: RefCell::default(),
            by_serial: RefCell::default(),
            by_number: RefCell::default(),
            roles: RefCell::default(),
            seat: RefCell::default(),
            serial: Cell::new(0),
            scale,
            viewporter: RefCell::default(),
        })
    }

    /// Returns what makes windows smaller than their pixels, if the host has it.
    pub(crate) fn viewporter(&self) -> Option<Rc<WpViewporter>> {
        self.viewporter.borrow().clone()
    }

    /// Takes what makes windows smaller than their pixels.
    pub(crate) fn set_viewporter(&self, viewporter: Rc<WpViewporter>) {
        *self.viewporter.borrow_mut() = Some(viewporter);
    }

    /// Notes something.
    pub(crate) fn note(&self, happening: Happening) {
        self.happenings.borrow_mut().push_back(happening);
    }

    /// Returns the oldest note.
    pub(crate) fn next(&self) -> Option<Happening> {
        self.happenings.borrow_mut().pop_front()
    }

    /// Returns the surface with the xwayland-shell `serial`, once.
    pub(crate) fn take_serial(&self, serial: u64) -> Option<Rc<WlSurface>> {
        self.by_serial.borrow_mut().remove(&serial)
    }

    /// Returns the surface that Xwayland knows as `number`.
    pub(crate) fn by_number(&self, number: u32) -> Option<Rc<WlSurface>> {
        self.by_number.borrow().get(&number).cloned()
    }

    /// Notes a surface that Xwayland has made.
    pub(crate) fn add_surface(&self, surface: &Rc<WlSurface>) {
        if let Some(number) = surface.client_id() {
            self.by_number.borrow_mut().insert(number, surface.clone());
            self.note(Happening::Created(number));
        }
    }

    /// Remembers the role objects of a surface, which must go before the surface does.
    pub(crate) fn set_role(&self, surface: &Rc<WlSurface>, role: &Rc<Role>) {
        self.roles
            .borrow_mut()
            .insert(surface.unique_id(), Rc::downgrade(role));
    }

    /// Forgets a surface that Xwayland destroys.
    pub(crate) fn surface_gone(&self, surface: &Rc<WlSurface>) {
        let role = self.roles.borrow_mut().remove(&surface.unique_id());
        if let Some(role) = role.and_then(|role| role.upgrade()) {
            role.destroy();
        }
        self.by_number
            .borrow_mut()
            .retain(|_, each| !Rc::ptr_eq(each, surface));
        self.by_serial
            .borrow_mut()
            .retain(|_, each| !Rc::ptr_eq(each, surface));
    }
}

/// Handles `xwayland_shell_v1`, which only Xwayland's own connection is offered.
pub(crate) struct ShellHandler(pub(crate) Rc<Bridge>);

impl XwaylandShellV1Handler for ShellHandler {
    fn handle_get_xwayland_surface(
        &mut self,
        _slf: &Rc<XwaylandShellV1>,
        id: &Rc<XwaylandSurfaceV1>,
        surface: &Rc<WlSurface>,
    ) {
        id.set_handler(ShellSurface(self.0.clone(), surface.clone()));
    }

    fn handle_destroy(&mut self, slf: &Rc<XwaylandShellV1>) {
        slf.delete_id();
    }
}

struct ShellSurface(Rc<Bridge>, Rc<WlSurface>);

impl XwaylandSurfaceV1Handler for ShellSurface {
    fn handle_set_serial(&mut self, _slf: &Rc<XwaylandSurfaceV1>, serial_lo: u32, serial_hi: u32) {
        let serial = u64::from(serial_hi) << 32 | u64::from(serial_lo);
        self.0.by_serial.borrow_mut().insert(serial, self.1.clone());
        self.0.note(Happening::Associated(serial));
    }

    fn handle_destroy(&mut self, slf: &Rc<XwaylandSurfaceV1>) {
        slf.delete_id();
    }
}

/// Handles the seat that Xwayland binds, to learn the serials of its input.
#[derive(Clone)]
pub(crate) struct InputWatch(pub(crate) Rc<Bridge>);

impl WlSeatHandler for InputWatch {
    fn handle_get_pointer(&mut self, slf: &Rc<WlSeat>, id: &Rc<WlPointer>) {
        slf.send_get_pointer(id);
        *self.0.seat.borrow_mut() = Some(slf.clone());
        id.set_handler(self.clone());
    }

    fn handle_get_keyboard(&mut self, slf: &Rc<WlSeat>, id: &Rc<WlKeyboard>) {
        slf.send_get_keyboard(id);
        *self.0.seat.borrow_mut() = Some(slf.clone());
        id.set_handler(self.clone());
    }

    fn handle_get_touch(&mut self, slf: &Rc<WlSeat>, id: &Rc<WlTouch>) {
        slf.send_get_touch(id);
        id.set_handler(Converter(self.0.scale.clone()));
    }
}

impl WlPointerHandler for InputWatch {
    fn handle_enter(
        &mut self,
        slf: &Rc<WlPointer>,
        serial: u32,
        surface: &Rc<WlSurface>,
        x: Fixed,
        y: Fixed,
    ) {
        let scale = &self.0.scale;
        slf.send_enter(serial, surface, scale.point(x), scale.point(y));
    }

    fn handle_motion(&mut self, slf: &Rc<WlPointer>, time: u32, x: Fixed, y: Fixed) {
        slf.send_motion(time, self.0.scale.point(x), self.0.scale.point(y));
    }

    fn handle_button(
        &mut self,
        slf: &Rc<WlPointer>,
        serial: u32,
        time: u32,
        button: u32,
        state: WlPointerButtonState,
    ) {
        self.0.serial.set(serial);
        slf.send_button(serial, time, button, state);
    }

    fn handle_set_cursor(
        &mut self,
        slf: &Rc<WlPointer>,
        serial: u32,
        surface: Option<&Rc<WlSurface>>,
        hotspot_x: i32,
        hotspot_y: i32,
    ) {
        let scale = &self.0.scale;
        let (x, y) = (scale.to_wayland(hotspot_x), scale.to_wayland(hotspot_y));
        slf.send_set_cursor(serial, surface, x, y);
        // A cursor is shown at once; it never becomes a window.
        if let Some(surface) = surface {
            with_surface(surface, |handler| handler.open(surface));
        }
    }
}

impl WlKeyboardHandler for InputWatch {
    fn handle_enter(
        &mut self,
        slf: &Rc<WlKeyboard>,
        serial: u32,
        surface: &Rc<WlSurface>,
        keys: &[u8],
    ) {
        self.0.serial.set(serial);
        slf.send_enter(serial, surface, keys);
    }

    fn handle_key(
        &mut self,
        slf: &Rc<WlKeyboard>,
        serial: u32,
        time: u32,
        key: u32,
        state: WlKeyboardKeyState,
    ) {
        self.0.serial.set(serial);
        slf.send_key(serial, time, key, state);
    }
}

/// Handles the xdg objects of one X window.
#[derive(Clone)]
pub(crate) struct WindowWatch(pub(crate) Rc<Bridge>, pub(crate) WindowId);

impl XdgSurfaceHandler for WindowWatch {
    fn handle_configure(&mut self, _slf: &Rc<XdgSurface>, serial: u32) {
        self.0.note(Happening::Configured(self.1, serial));
    }
}

impl XdgToplevelHandler for WindowWatch {
    fn handle_configure(&mut self, _slf: &Rc<XdgToplevel>, width: i32, height: i32, states: &[u8]) {
        let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap_or_default());
        let states = states.chunks_exact(4).map(word).collect();
        self.0
            .note(Happening::Proposed(self.1, width, height, states));
    }

    fn handle_close(&mut self, _slf: &Rc<XdgToplevel>) {
        self.0.note(Happening::CloseAsked(self.1));
    }

    fn handle_configure_bounds(&mut self, _slf: &Rc<XdgToplevel>, _width: i32, _height: i32) {}

    fn handle_wm_capabilities(&mut self, _slf: &Rc<XdgToplevel>, _capabilities: &[u8]) {}
}

impl XdgPopupHandler for WindowWatch {
    fn handle_configure(
        &mut self,
        _slf: &Rc<XdgPopup>,
        _x: i32,
        _y: i32,
        _width: i32,
        _height: i32,
    ) {
        // Popups are placed without any freedom, so there is nothing to learn.
    }

    fn handle_popup_done(&mut self, _slf: &Rc<XdgPopup>) {
        self.0.note(Happening::Dismissed(self.1));
    }

    fn handle_repositioned(&mut self, _slf: &Rc<XdgPopup>, _token: u32) {}
}
