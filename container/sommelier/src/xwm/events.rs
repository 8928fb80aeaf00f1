//! Events of the X server, one short function for each.

use x11rb::protocol::Event;
use x11rb::protocol::xproto::{
    ClientMessageEvent, ConfigWindow, ConfigureNotifyEvent, ConfigureRequestEvent,
    ConfigureWindowAux, ConnectionExt as _, CreateNotifyEvent, MapRequestEvent,
    PropertyNotifyEvent, StackMode,
};

use super::bridge::WindowId;
use super::window::{Place, Window};
use super::{Xwm, XwmError};

/// `WM_CHANGE_STATE`'s only value of interest (ICCCM 4.1.4).
const ICONIC: u32 = 3;

impl Xwm {
    pub(super) fn handle_event(&mut self, event: &Event) -> Result<(), XwmError> {
        if self.selections.handle_event(event)? {
            return Ok(());
        }
        match event {
            Event::CreateNotify(event) => self.created(event),
            Event::DestroyNotify(event) => self.forget(event.window),
            Event::MapRequest(event) => self.map_asked(event),
            Event::MapNotify(event) => self.was_mapped(event.window, event.override_redirect),
            Event::UnmapNotify(event) => self.was_unmapped(event.window),
            Event::ReparentNotify(event) if event.parent != self.root => self.forget(event.window),
            Event::ConfigureRequest(event) => self.configure_asked(event),
            Event::ConfigureNotify(event) => {
                self.was_configured(event);
                Ok(())
            }
            Event::PropertyNotify(event) => self.property_changed(event),
            Event::ClientMessage(event) => self.message(event),
            Event::Error(error) => {
                // Windows vanish at any time, so requests about them fail at any time.
                tracing::debug!(?error, "x error");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn created(&mut self, event: &CreateNotifyEvent) -> Result<(), XwmError> {
        if event.parent != self.root || event.window == self.manager {
            return Ok(());
        }
        let place = Place {
            x: event.x.into(),
            y: event.y.into(),
            width: event.width.into(),
            height: event.height.into(),
        };
        let window = Window::new(event.window, place, event.override_redirect);
        self.windows.insert(event.window, window);
        self.watch_properties(event.window)
    }

    fn map_asked(&mut self, event: &MapRequestEvent) -> Result<(), XwmError> {
        let id = event.window;
        self.learn(id);
        self.set_wm_state(id, true)?;
        let is_popup = self.windows.get(&id).is_some_and(Window::is_popup);
        if !is_popup {
            self.x
                .configure_window(id, &ConfigureWindowAux::new().x(0).y(0))?;
        }
        self.x.map_window(id)?;
        Ok(())
    }

    fn was_mapped(&mut self, id: WindowId, override_redirect: bool) -> Result<(), XwmError> {
        let Some(window) = self.windows.get_mut(&id) else {
            return Ok(());
        };
        window.mapped = true;
        window.override_redirect = override_redirect;
        self.learn(id);
        self.show(id)
    }

    fn was_unmapped(&mut self, id: WindowId) -> Result<(), XwmError> {
        self.unshow_with_popups(id);
        let Some(window) = self.windows.get_mut(&id) else {
            return Ok(());
        };
        window.mapped = false;
        (window.awaited, window.awaited_number) = (None, None);
        if !window.override_redirect {
            self.set_wm_state(id, false)?;
        }
        self.lose_focus(id)?;
        self.list_clients()
    }

    fn forget(&mut self, id: WindowId) -> Result<(), XwmError> {
        self.unshow_with_popups(id);
        self.windows.remove(&id);
        self.lose_focus(id)?;
        self.list_clients()
    }

    fn configure_asked(&mut self, event: &ConfigureRequestEvent) -> Result<(), XwmError> {
        let Some(window) = self.windows.get(&event.window) else {
            return Ok(());
        };
        let mut aux = ConfigureWindowAux::new();
        let asked = |part: ConfigWindow| event.value_mask.contains(part);
        if window.states.maximized || window.states.fullscreen {
            // Its size is the compositor's; ICCCM 4.1.5 wants an answer all the same.
            return self.confirm_place(event.window);
        }
        let free = window.is_popup() || !window.mapped;
        if free && asked(ConfigWindow::X) {
            aux = aux.x(i32::from(event.x));
        }
        if free && asked(ConfigWindow::Y) {
            aux = aux.y(i32::from(event.y));
        }
        if asked(ConfigWindow::WIDTH) {
            aux = aux.width(u32::from(event.width.max(1)));
        }
        if asked(ConfigWindow::HEIGHT) {
            aux = aux.height(u32::from(event.height.max(1)));
        }
        if asked(ConfigWindow::BORDER_WIDTH) {
            aux = aux.border_width(0);
        }
        self.x.configure_window(event.window, &aux)?;
        if window.mapped && !window.is_popup() {
            self.confirm_place(event.window)?;
        }
        Ok(())
    }

    fn was_configured(&mut self, event: &ConfigureNotifyEvent) {
        let place = Place {
            x: event.x.into(),
            y: event.y.into(),
            width: event.width.into(),
            height: event.height.into(),
        };
        let Some(window) = self.windows.get_mut(&event.window) else {
            return;
        };
        window.override_redirect = event.override_redirect;
        if std::mem::replace(&mut window.place, place) != place {
            self.follow_place(event.window);
        }
    }

    fn property_changed(&mut self, event: &PropertyNotifyEvent) -> Result<(), XwmError> {
        let id = event.window;
        if self.windows.get(&id).is_some_and(|window| window.mapped) {
            let before = self.windows[&id].properties.clone();
            self.learn(id);
            if self.windows[&id].properties != before {
                self.tell_properties(id);
            }
        }
        Ok(())
    }

    fn message(&mut self, event: &ClientMessageEvent) -> Result<(), XwmError> {
        let data = event.data.as_data32();
        let atoms = self.atoms.clone();
        let id = event.window;
        if event.type_ == atoms.WL_SURFACE_SERIAL {
            self.awaits_serial(id, u64::from(data[1]) << 32 | u64::from(data[0]))
        } else if event.type_ == atoms.WL_SURFACE_ID {
            self.awaits_number(id, data[0])
        } else if event.type_ == atoms._NET_WM_STATE {
            self.state_asked(id, data[0], [data[1], data[2]])
        } else if event.type_ == atoms.WM_CHANGE_STATE && data[0] == ICONIC {
            self.with_toplevel(id, |toplevel| toplevel.send_set_minimized());
            Ok(())
        } else if event.type_ == atoms._NET_WM_MOVERESIZE {
            self.move_asked(id, data[2]);
            Ok(())
        } else if event.type_ == atoms._NET_ACTIVE_WINDOW {
            // Only the compositor gives the focus away; within the focused window it is free.
            self.x
                .configure_window(id, &ConfigureWindowAux::new().stack_mode(StackMode::ABOVE))?;
            Ok(())
        } else {
            Ok(())
        }
    }
}
