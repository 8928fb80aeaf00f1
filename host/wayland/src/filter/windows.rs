//! Windows of a guest: each one is marked from its first moment, and asks for attention only after
//! the user has used the VM.

use std::rc::Rc;

use wl_proxy::object::ObjectCoreApi;
use wl_proxy::protocols::wayland::wl_buffer::WlBuffer;
use wl_proxy::protocols::wayland::wl_output::{
    WlOutput, WlOutputHandler, WlOutputSubpixel, WlOutputTransform,
};
use wl_proxy::protocols::wayland::wl_surface::WlSurface;
use wl_proxy::protocols::xdg_activation_v1::xdg_activation_token_v1::{
    XdgActivationTokenV1, XdgActivationTokenV1Handler,
};
use wl_proxy::protocols::xdg_activation_v1::xdg_activation_v1::{
    XdgActivationV1, XdgActivationV1Handler,
};
use wl_proxy::protocols::xdg_shell::xdg_surface::{XdgSurface, XdgSurfaceHandler};
use wl_proxy::protocols::xdg_shell::xdg_toplevel::{XdgToplevel, XdgToplevelHandler};
use wl_proxy::protocols::xdg_shell::xdg_wm_base::{XdgWmBase, XdgWmBaseHandler};
use wl_proxy::protocols::xdg_toplevel_icon_v1::xdg_toplevel_icon_manager_v1::{
    XdgToplevelIconManagerV1, XdgToplevelIconManagerV1Handler,
};
use wl_proxy::protocols::xdg_toplevel_icon_v1::xdg_toplevel_icon_v1::{
    XdgToplevelIconV1, XdgToplevelIconV1Handler,
};

use super::memory::buffer_size;
use super::{Context, marking};
use crate::vm::{Counted, Held};

/// The largest icon side, in pixels; the icon themes' own largest.
const MAX_ICON: i32 = 512;

/// Handles `xdg_wm_base`.
pub(crate) struct WmBaseHandler(pub(crate) Context);

impl XdgWmBaseHandler for WmBaseHandler {
    fn handle_get_xdg_surface(
        &mut self,
        slf: &Rc<XdgWmBase>,
        id: &Rc<XdgSurface>,
        surface: &Rc<WlSurface>,
    ) {
        slf.send_get_xdg_surface(id, surface);
        id.set_handler(SurfaceHandler(self.0.clone()));
    }
}

struct SurfaceHandler(Context);

impl XdgSurfaceHandler for SurfaceHandler {
    fn handle_get_toplevel(&mut self, slf: &Rc<XdgSurface>, id: &Rc<XdgToplevel>) {
        let Some(held) = self.0.vm.hold(Counted::Window) else {
            return self.0.refuse(slf.clone(), "too many windows");
        };
        slf.send_get_toplevel(id);
        let window = Window {
            context: self.0.clone(),
            _held: held,
        };
        // A program that never names itself must not be an unmarked window.
        window.set_title(id, "");
        window.set_app_id(id, "");
        id.set_handler(window);
    }
}

struct Window {
    context: Context,
    _held: Held,
}

impl Window {
    fn set_title(&self, toplevel: &Rc<XdgToplevel>, title: &str) {
        toplevel.send_set_title(&marking::title(&self.context.vm.name, title));
    }

    fn set_app_id(&self, toplevel: &Rc<XdgToplevel>, app_id: &str) {
        let vm = &self.context.vm;
        toplevel.send_set_app_id(&marking::app_id(&vm.policy.app_id_prefix, &vm.name, app_id));
    }
}

impl XdgToplevelHandler for Window {
    fn handle_set_title(&mut self, slf: &Rc<XdgToplevel>, title: &str) {
        self.set_title(slf, title);
    }

    fn handle_set_app_id(&mut self, slf: &Rc<XdgToplevel>, app_id: &str) {
        self.set_app_id(slf, app_id);
    }
}

/// Handles `xdg_activation_v1`.
pub(crate) struct ActivationHandler(pub(crate) Context);

impl XdgActivationV1Handler for ActivationHandler {
    fn handle_get_activation_token(
        &mut self,
        slf: &Rc<XdgActivationV1>,
        id: &Rc<XdgActivationTokenV1>,
    ) {
        slf.send_get_activation_token(id);
        id.set_handler(TokenHandler(self.0.clone()));
    }
}

struct TokenHandler(Context);

impl XdgActivationTokenV1Handler for TokenHandler {
    fn handle_set_app_id(&mut self, slf: &Rc<XdgActivationTokenV1>, app_id: &str) {
        let vm = &self.0.vm;
        slf.send_set_app_id(&marking::app_id(&vm.policy.app_id_prefix, &vm.name, app_id));
    }

    fn handle_commit(&mut self, slf: &Rc<XdgActivationTokenV1>) {
        if self.0.vm.has_fresh_input() {
            slf.send_commit();
        } else {
            // An invalid token: the compositor will at most mark the window as urgent.
            slf.send_done("denied");
        }
    }
}

/// Handles `xdg_toplevel_icon_manager_v1`.
pub(crate) struct IconManager(pub(crate) Context);

impl XdgToplevelIconManagerV1Handler for IconManager {
    fn handle_create_icon(
        &mut self,
        slf: &Rc<XdgToplevelIconManagerV1>,
        id: &Rc<XdgToplevelIconV1>,
    ) {
        slf.send_create_icon(id);
        id.set_handler(Icon(self.0.clone()));
    }
}

struct Icon(Context);

impl XdgToplevelIconV1Handler for Icon {
    fn handle_set_name(&mut self, slf: &Rc<XdgToplevelIconV1>, icon_name: &str) {
        // Names are looked up in the host's themes, where a path would be a path of the host.
        if icon_name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        {
            slf.send_set_name(icon_name);
        }
    }

    fn handle_add_buffer(
        &mut self,
        slf: &Rc<XdgToplevelIconV1>,
        buffer: &Rc<WlBuffer>,
        scale: i32,
    ) {
        match buffer_size(buffer) {
            Some((width, height)) if width <= MAX_ICON && height <= MAX_ICON => {
                slf.send_add_buffer(buffer, scale);
            }
            _ => self.0.refuse(slf.clone(), "icon too large"),
        }
    }
}

/// Handles `wl_output`: what a screen can do passes, what it is does not.
pub(crate) struct OutputHandler;

impl WlOutputHandler for OutputHandler {
    fn handle_geometry(
        &mut self,
        slf: &Rc<WlOutput>,
        x: i32,
        y: i32,
        physical_width: i32,
        physical_height: i32,
        subpixel: WlOutputSubpixel,
        _make: &str,
        _model: &str,
        transform: WlOutputTransform,
    ) {
        let (make, model) = ("Testudo", "screen");
        slf.send_geometry(
            x,
            y,
            physical_width,
            physical_height,
            subpixel,
            make,
            model,
            transform,
        );
    }

    fn handle_description(&mut self, slf: &Rc<WlOutput>, _description: &str) {
        // Compositors put the serial number of the screen here.
        slf.send_description(&format!("screen {}", slf.unique_id()));
    }
}
