//! Bringing X windows onto the Wayland side and keeping the two in step.

use std::rc::Rc;

use wl_proxy::protocols::wayland::wl_surface::WlSurface;
use wl_proxy::protocols::xdg_shell::xdg_toplevel::{XdgToplevel, XdgToplevelResizeEdge};
use x11rb::protocol::xproto::{ConfigureWindowAux, ConnectionExt as _};

use super::bridge::WindowId;
use super::properties::Properties;
use super::window::{Role, RoleKind, States, Window};
use super::{Xwm, XwmError};
use crate::surface::with_surface;

/// `_NET_WM_MOVERESIZE` directions (EWMH 1.5): eight edges clockwise from the upper left, then moving.
const MOVE: u32 = 8;
const EDGES: [XdgToplevelResizeEdge; 8] = [
    XdgToplevelResizeEdge::TOP_LEFT,
    XdgToplevelResizeEdge::TOP,
    XdgToplevelResizeEdge::TOP_RIGHT,
    XdgToplevelResizeEdge::RIGHT,
    XdgToplevelResizeEdge::BOTTOM_RIGHT,
    XdgToplevelResizeEdge::BOTTOM,
    XdgToplevelResizeEdge::BOTTOM_LEFT,
    XdgToplevelResizeEdge::LEFT,
];

impl Window {
    /// Returns whether the window belongs to another one and has no frame.
    pub(super) fn is_popup(&self) -> bool {
        self.override_redirect || self.properties.popup
    }
}

impl Xwm {
    /// Notes that `id` will be drawn on the surface with that serial.
    pub(super) fn awaits_serial(&mut self, id: WindowId, serial: u64) -> Result<(), XwmError> {
        let Some(window) = self.windows.get_mut(&id) else {
            return Ok(());
        };
        window.awaited = Some(serial);
        match self.bridge.take_serial(serial) {
            Some(surface) => self.associate(id, surface),
            None => Ok(()),
        }
    }

    /// Handles a surface that has said its serial.
    pub(super) fn associate_serial(&mut self, serial: u64) -> Result<(), XwmError> {
        let waiting = self
            .windows
            .values()
            .find(|window| window.awaited == Some(serial));
        let Some(id) = waiting.map(|window| window.id) else {
            return Ok(());
        };
        match self.bridge.take_serial(serial) {
            Some(surface) => self.associate(id, surface),
            None => Ok(()),
        }
    }

    /// Handles a window of an older Xwayland that says its surface's number, which may come before or after the
    /// surface itself.
    pub(super) fn awaits_number(&mut self, id: WindowId, number: u32) -> Result<(), XwmError> {
        let Some(window) = self.windows.get_mut(&id) else {
            return Ok(());
        };
        match self.bridge.by_number(number) {
            Some(surface) => self.associate(id, surface),
            None => {
                window.awaited_number = Some(number);
                Ok(())
            }
        }
    }

    /// Handles a surface that an older Xwayland has made.
    pub(super) fn associate_created(&mut self, number: u32) -> Result<(), XwmError> {
        let waiting = self
            .windows
            .values()
            .find(|window| window.awaited_number == Some(number));
        let Some(id) = waiting.map(|window| window.id) else {
            return Ok(());
        };
        match self.bridge.by_number(number) {
            Some(surface) => self.associate(id, surface),
            None => Ok(()),
        }
    }

    fn associate(&mut self, id: WindowId, surface: Rc<WlSurface>) -> Result<(), XwmError> {
        let Some(window) = self.windows.get_mut(&id) else {
            return Ok(());
        };
        window.unshow();
        (window.awaited, window.awaited_number) = (None, None);
        window.surface = Some(surface);
        self.show(id)
    }

    /// Gives `id` a role once everything for it is there.
    pub(super) fn show(&mut self, id: WindowId) -> Result<(), XwmError> {
        let Some(window) = self.windows.get(&id) else {
            return Ok(());
        };
        let Some(surface) = window.surface.clone() else {
            return Ok(());
        };
        if !window.mapped || window.role.is_some() {
            return Ok(());
        }
        let own = self.own.borrow();
        let parent = window
            .is_popup()
            .then(|| self.popup_parent(window))
            .flatten();
        let role = match parent {
            Some(parent) => Role::popup(&own, &self.bridge, (id, &surface), window.place, parent),
            None => Role::toplevel(&own, &self.bridge, (id, &surface), &window.properties),
        };
        drop(own);
        let Some(role) = role.map(Rc::new) else {
            return Ok(());
        };
        self.bridge.set_role(&surface, &role);
        if let Some(window) = self.windows.get_mut(&id) {
            window.role = Some(role);
        }
        self.tell_properties(id);
        self.tell_first_states(id);
        // The commit without a picture that asks the compositor for a size.
        surface.send_commit();
        self.list_clients()
    }

    /// Returns the window that a menu or tip belongs to: the one it names, or that with the focus.
    fn popup_parent(&self, window: &Window) -> Option<&Window> {
        let shown = |id: WindowId| {
            self.windows
                .get(&id)
                .filter(|parent| parent.configured && parent.id != window.id)
        };
        let named = window.properties.transient_for.and_then(shown);
        let parent = named.or_else(|| self.focus.or(self.last_focus).and_then(shown))?;
        match parent.role.as_ref().map(|role| &role.kind)? {
            RoleKind::Toplevel(_) => Some(parent),
            RoleKind::Popup(_, owner) => shown(*owner),
        }
    }

    /// Tells the compositor what a window says of itself.
    pub(super) fn tell_properties(&self, id: WindowId) {
        let Some(window) = self.windows.get(&id) else {
            return;
        };
        let Some(role) = &window.role else { return };
        let Some(toplevel) = role.as_toplevel() else {
            return;
        };
        let Properties {
            title,
            app_id,
            transient_for,
            min_size,
            max_size,
            shadow,
            ..
        } = &window.properties;
        toplevel.send_set_title(title);
        toplevel.send_set_app_id(app_id);
        let parent = transient_for.and_then(|parent| self.windows.get(&parent)?.role.as_ref());
        toplevel.send_set_parent(parent.and_then(|role| role.as_toplevel()));
        let [left, right, top, bottom] = *shadow;
        let (wide, high) = (left + right, top + bottom);
        let scale = &self.bridge.scale;
        let inner =
            |(width, height): (i32, i32)| scale.size_to_wayland((width - wide, height - high));
        let (min, max) = (
            min_size.map_or((0, 0), inner),
            max_size.map_or((0, 0), inner),
        );
        // The protocol forbids a maximum below the minimum, programs do not.
        if max == (0, 0) || (max.0 >= min.0 && max.1 >= min.1) {
            toplevel.send_set_min_size(min.0, min.1);
            toplevel.send_set_max_size(max.0, max.1);
        }
        self.tell_geometry(window, role);
    }

    fn tell_geometry(&self, window: &Window, role: &Role) {
        let frame = window.frame_place();
        if window.properties.shadow != [0; 4] && frame.width > 0 && frame.height > 0 {
            let scale = &self.bridge.scale;
            let (x, y) = (
                scale.to_wayland(frame.x - window.place.x),
                scale.to_wayland(frame.y - window.place.y),
            );
            let (width, height) = scale.size_to_wayland((frame.width, frame.height));
            role.xdg_surface
                .send_set_window_geometry(x, y, width, height);
        }
    }

    fn tell_first_states(&self, id: WindowId) {
        let Some(window) = self.windows.get(&id) else {
            return;
        };
        let Properties {
            fullscreen,
            maximized,
            ..
        } = window.properties;
        self.with_toplevel(id, |toplevel| {
            if maximized {
                toplevel.send_set_maximized();
            }
            if fullscreen {
                toplevel.send_set_fullscreen(None);
            }
        });
    }

    /// Handles a size and states that the compositor proposes.
    pub(super) fn propose(
        &mut self,
        id: WindowId,
        (width, height): (i32, i32),
        states: &[u32],
    ) -> Result<(), XwmError> {
        let Some(window) = self.windows.get_mut(&id) else {
            return Ok(());
        };
        let before = std::mem::replace(&mut window.states, States::from_xdg(states));
        let after = window.states;
        if width > 0 && height > 0 {
            let [left, right, top, bottom] = window.properties.shadow;
            let scale = &self.bridge.scale;
            let size =
                |inner: i32, edges: i32| u32::try_from(scale.to_x(inner) + edges).unwrap_or(1);
            let aux = ConfigureWindowAux::new()
                .x(0)
                .y(0)
                .width(size(width, left + right))
                .height(size(height, top + bottom));
            self.x.configure_window(id, &aux)?;
        }
        if before != after {
            self.set_net_states(id, after)?;
        }
        if before.activated != after.activated {
            if after.activated {
                self.take_focus(id)?;
            } else {
                self.lose_focus(id)?;
            }
        }
        Ok(())
    }

    /// Acknowledges what the compositor proposed; the window may be drawn from now on.
    pub(super) fn acknowledge(&mut self, id: WindowId, serial: u32) {
        let Some(window) = self.windows.get_mut(&id) else {
            return;
        };
        let (Some(role), Some(surface)) = (&window.role, &window.surface) else {
            return;
        };
        role.xdg_surface.send_ack_configure(serial);
        window.configured = true;
        with_surface(surface, |handler| handler.open(surface));
    }

    /// Handles a popup that the compositor has taken away.
    pub(super) fn dismiss(&mut self, id: WindowId) {
        if let Some(window) = self.windows.get_mut(&id) {
            window.unshow();
        }
    }

    /// Takes a window off the screen, and first what belongs to it.
    pub(super) fn unshow_with_popups(&mut self, id: WindowId) {
        for window in self.windows.values_mut() {
            let belongs = window.role.as_ref().is_some_and(
                |role| matches!(role.kind, RoleKind::Popup(_, parent) if parent == id),
            );
            if belongs {
                window.unshow();
            }
        }
        if let Some(window) = self.windows.get_mut(&id) {
            window.unshow();
        }
    }

    /// Tells the compositor that a window is elsewhere in the X world, as far as it matters there.
    pub(super) fn follow_place(&self, id: WindowId) {
        let Some(window) = self.windows.get(&id) else {
            return;
        };
        let Some(role) = &window.role else { return };
        match &role.kind {
            RoleKind::Toplevel(_) => self.tell_geometry(window, role),
            RoleKind::Popup(_, parent) => {
                if let Some(parent) = self.windows.get(parent) {
                    let scale = &self.bridge.scale;
                    role.reposition(
                        &self.own.borrow(),
                        scale,
                        window.place,
                        parent.frame_place(),
                    );
                }
            }
        }
    }

    /// Lets the user move or resize a window that draws its own frame.
    pub(super) fn move_asked(&self, id: WindowId, direction: u32) {
        let seat = self.bridge.seat.borrow();
        let Some(seat) = seat.as_ref() else { return };
        let serial = self.bridge.serial.get();
        self.with_toplevel(id, |toplevel| {
            if direction == MOVE {
                toplevel.send_move(seat, serial);
            } else if let Some(edge) = EDGES.get(direction as usize) {
                toplevel.send_resize(seat, serial, *edge);
            }
        });
    }

    /// Calls `act` with the window object of `id`, if it has one.
    pub(super) fn with_toplevel(&self, id: WindowId, act: impl FnOnce(&Rc<XdgToplevel>)) {
        let role = self
            .windows
            .get(&id)
            .and_then(|window| window.role.as_ref());
        if let Some(toplevel) = role.and_then(|role| role.as_toplevel()) {
            act(toplevel);
        }
    }
}
