//! What the window manager tells X programs: focus, states, lists (ICCCM 4.1, EWMH 1.5).

use x11rb::protocol::xproto::{
    AtomEnum, ChangeWindowAttributesAux, ClientMessageEvent, ConfigureNotifyEvent,
    ConfigureWindowAux, ConnectionExt as _, EventMask, InputFocus, PropMode, StackMode,
};
use x11rb::wrapper::ConnectionExt as _;
use x11rb::{CURRENT_TIME, NONE};

use super::bridge::WindowId;
use super::properties::Properties;
use super::window::States;
use super::{Xwm, XwmError};

/// `WM_STATE` values (ICCCM 4.1.3.1).
const WITHDRAWN: u32 = 0;
const NORMAL: u32 = 1;

/// `_NET_WM_STATE` actions (EWMH 1.5).
const REMOVE: u32 = 0;
const ADD: u32 = 1;

impl Xwm {
    /// Reads what a window says of itself.
    pub(super) fn learn(&mut self, id: WindowId) {
        if let Some(window) = self.windows.get_mut(&id)
            && let Some(properties) = Properties::read(&self.x, &self.atoms, id)
        {
            window.properties = properties;
        }
    }

    pub(super) fn watch_properties(&self, id: WindowId) -> Result<(), XwmError> {
        let attributes = ChangeWindowAttributesAux::new().event_mask(EventMask::PROPERTY_CHANGE);
        self.x.change_window_attributes(id, &attributes)?;
        Ok(())
    }

    pub(super) fn set_wm_state(&self, id: WindowId, shown: bool) -> Result<(), XwmError> {
        let state = self.atoms.WM_STATE;
        let value = if shown { NORMAL } else { WITHDRAWN };
        self.x
            .change_property32(PropMode::REPLACE, id, state, state, &[value, NONE])?;
        Ok(())
    }

    pub(super) fn set_net_states(&self, id: WindowId, states: States) -> Result<(), XwmError> {
        let atoms = &self.atoms;
        let mut list = Vec::new();
        if states.maximized {
            list.extend([
                atoms._NET_WM_STATE_MAXIMIZED_VERT,
                atoms._NET_WM_STATE_MAXIMIZED_HORZ,
            ]);
        }
        if states.fullscreen {
            list.push(atoms._NET_WM_STATE_FULLSCREEN);
        }
        if states.activated {
            list.push(atoms._NET_WM_STATE_FOCUSED);
        }
        let property = atoms._NET_WM_STATE;
        self.x
            .change_property32(PropMode::REPLACE, id, property, AtomEnum::ATOM, &list)?;
        Ok(())
    }

    /// Gives `id` the X focus because it has the compositor's.
    pub(super) fn take_focus(&mut self, id: WindowId) -> Result<(), XwmError> {
        let Some(window) = self.windows.get(&id) else {
            return Ok(());
        };
        let (input, tell) = (
            window.properties.accepts_input,
            window.properties.takes_focus,
        );
        (self.focus, self.last_focus) = (Some(id), Some(id));
        if input {
            self.x
                .set_input_focus(InputFocus::POINTER_ROOT, id, CURRENT_TIME)?;
        }
        if tell {
            self.send_protocol(id, self.atoms.WM_TAKE_FOCUS)?;
        }
        self.x
            .configure_window(id, &ConfigureWindowAux::new().stack_mode(StackMode::ABOVE))?;
        self.set_active(id)
    }

    /// Takes the X focus from `id`, if it has it.
    pub(super) fn lose_focus(&mut self, id: WindowId) -> Result<(), XwmError> {
        if self.last_focus == Some(id) && !self.windows.contains_key(&id) {
            self.last_focus = None;
        }
        if self.focus != Some(id) {
            return Ok(());
        }
        self.focus = None;
        self.x
            .set_input_focus(InputFocus::NONE, NONE, CURRENT_TIME)?;
        self.set_active(NONE)
    }

    fn set_active(&self, id: WindowId) -> Result<(), XwmError> {
        let active = self.atoms._NET_ACTIVE_WINDOW;
        self.x.change_property32(
            PropMode::REPLACE,
            self.root,
            active,
            AtomEnum::WINDOW,
            &[id],
        )?;
        Ok(())
    }

    /// Closes a window the way its program wants it.
    pub(super) fn close(&self, id: WindowId) -> Result<(), XwmError> {
        let Some(window) = self.windows.get(&id) else {
            return Ok(());
        };
        if window.properties.deletes {
            self.send_protocol(id, self.atoms.WM_DELETE_WINDOW)
        } else {
            self.x.kill_client(id)?;
            Ok(())
        }
    }

    fn send_protocol(&self, id: WindowId, protocol: u32) -> Result<(), XwmError> {
        let data = [protocol, CURRENT_TIME, 0, 0, 0];
        let event = ClientMessageEvent::new(32, id, self.atoms.WM_PROTOCOLS, data);
        self.x.send_event(false, id, EventMask::NO_EVENT, event)?;
        Ok(())
    }

    /// Tells a program where its window is, although nothing has changed.
    pub(super) fn confirm_place(&self, id: WindowId) -> Result<(), XwmError> {
        let Some(window) = self.windows.get(&id) else {
            return Ok(());
        };
        let place = window.place;
        let side = |side: i32| u16::try_from(side).unwrap_or(u16::MAX);
        let event = ConfigureNotifyEvent {
            response_type: x11rb::protocol::xproto::CONFIGURE_NOTIFY_EVENT,
            sequence: 0,
            event: id,
            window: id,
            above_sibling: NONE,
            x: i16::try_from(place.x).unwrap_or(0),
            y: i16::try_from(place.y).unwrap_or(0),
            width: side(place.width),
            height: side(place.height),
            border_width: 0,
            override_redirect: window.override_redirect,
        };
        self.x
            .send_event(false, id, EventMask::STRUCTURE_NOTIFY, event)?;
        Ok(())
    }

    /// Handles a program that wants other states for its window.
    pub(super) fn state_asked(
        &self,
        id: WindowId,
        action: u32,
        states: [u32; 2],
    ) -> Result<(), XwmError> {
        let Some(window) = self.windows.get(&id) else {
            return Ok(());
        };
        let current = window.states;
        let wanted = |now: bool| match action {
            REMOVE => false,
            ADD => true,
            _ => !now,
        };
        let atoms = &self.atoms;
        self.with_toplevel(id, |toplevel| {
            if states.contains(&atoms._NET_WM_STATE_FULLSCREEN) {
                if wanted(current.fullscreen) {
                    toplevel.send_set_fullscreen(None);
                } else {
                    toplevel.send_unset_fullscreen();
                }
            }
            if states.contains(&atoms._NET_WM_STATE_MAXIMIZED_VERT) {
                if wanted(current.maximized) {
                    toplevel.send_set_maximized();
                } else {
                    toplevel.send_unset_maximized();
                }
            }
        });
        Ok(())
    }

    /// Keeps the list of windows that pagers and some toolkits read.
    pub(super) fn list_clients(&self) -> Result<(), XwmError> {
        let shown = |id: &WindowId| {
            self.windows[id]
                .role
                .as_ref()
                .is_some_and(|role| role.as_toplevel().is_some())
        };
        let list: Vec<u32> = self.windows.keys().copied().filter(shown).collect();
        let property = self.atoms._NET_CLIENT_LIST;
        self.x.change_property32(
            PropMode::REPLACE,
            self.root,
            property,
            AtomEnum::WINDOW,
            &list,
        )?;
        Ok(())
    }
}
