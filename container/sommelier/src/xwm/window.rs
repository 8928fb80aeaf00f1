//! One X window and what shows it on the Wayland side.

use std::cell::Cell;
use std::rc::Rc;

use wl_proxy::object::ObjectCoreApi;
use wl_proxy::protocols::wayland::wl_surface::WlSurface;
use wl_proxy::protocols::xdg_decoration_unstable_v1::zxdg_toplevel_decoration_v1::{
    ZxdgToplevelDecorationV1, ZxdgToplevelDecorationV1Handler, ZxdgToplevelDecorationV1Mode,
};
use wl_proxy::protocols::xdg_shell::xdg_popup::XdgPopup;
use wl_proxy::protocols::xdg_shell::xdg_positioner::{
    XdgPositioner, XdgPositionerAnchor, XdgPositionerConstraintAdjustment, XdgPositionerGravity,
};
use wl_proxy::protocols::xdg_shell::xdg_surface::XdgSurface;
use wl_proxy::protocols::xdg_shell::xdg_toplevel::XdgToplevel;
use wl_proxy::protocols::xdg_shell::xdg_wm_base::XdgWmBase;

use super::bridge::{Bridge, WindowId, WindowWatch};
use super::own::Own;
use super::properties::Properties;
use super::scale::Scale;
use crate::surface::with_surface;

/// The version of xdg-shell that can move popups.
const REPOSITION_SINCE: u32 = 3;

/// Where a window is in the X world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// Left edge.
    pub(crate) x: i32,
    /// Upper edge.
    pub(crate) y: i32,
    /// Width without border.
    pub(crate) width: i32,
    /// Height without border.
    pub(crate) height: i32,
}

/// One X window.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the window"
)]
pub(crate) struct Window {
    /// Its number.
    pub(crate) id: WindowId,
    /// The window has said that no window manager is to touch it: menus, tips.
    pub(crate) override_redirect: bool,
    /// Where it is.
    pub(crate) place: Place,
    /// What it says of itself.
    pub(crate) properties: Properties,
    /// It is to be seen.
    pub(crate) mapped: bool,
    /// The serial of xwayland-shell it waits for.
    pub(crate) awaited: Option<u64>,
    /// The number of the surface it waits for, with an older Xwayland.
    pub(crate) awaited_number: Option<u32>,
    /// The surface Xwayland draws it on.
    pub(crate) surface: Option<Rc<WlSurface>>,
    /// What the compositor knows it as.
    pub(crate) role: Option<Rc<Role>>,
    /// The compositor has given the role its first size.
    pub(crate) configured: bool,
    /// What the compositor last said of it.
    pub(crate) states: States,
}

/// States of a window that X and Wayland both know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a state of its own in both protocols"
)]
pub(crate) struct States {
    /// It has the focus.
    pub(crate) activated: bool,
    /// It fills the work area.
    pub(crate) maximized: bool,
    /// It fills the screen.
    pub(crate) fullscreen: bool,
}

/// A window's objects on the Wayland side.
pub(crate) struct Role {
    /// The surface's role object.
    pub(crate) xdg_surface: Rc<XdgSurface>,
    /// Window or popup.
    pub(crate) kind: RoleKind,
    decoration: Option<Rc<ZxdgToplevelDecorationV1>>,
    gone: Cell<bool>,
}

/// What a window is for the compositor.
pub(crate) enum RoleKind {
    /// A window of its own.
    Toplevel(Rc<XdgToplevel>),
    /// Something that belongs to the window with this number.
    Popup(Rc<XdgPopup>, WindowId),
}

impl States {
    /// Returns the states that an `xdg_toplevel.configure` names (xdg-shell, enum state).
    #[must_use]
    pub(crate) fn from_xdg(states: &[u32]) -> Self {
        Self {
            maximized: states.contains(&1),
            fullscreen: states.contains(&2),
            activated: states.contains(&4),
        }
    }
}

impl Role {
    /// Makes a window of `surface`.
    #[must_use]
    pub(crate) fn toplevel(
        own: &Own,
        bridge: &Rc<Bridge>,
        (id, surface): (WindowId, &Rc<WlSurface>),
        properties: &Properties,
    ) -> Option<Self> {
        let xdg_surface = watched(own.wm_base.as_ref()?, bridge, id, surface);
        let toplevel = xdg_surface.new_send_get_toplevel();
        toplevel.set_handler(WindowWatch(bridge.clone(), id));
        let decoration = own.decorations.as_ref().map(|manager| {
            let decoration = manager.new_send_get_toplevel_decoration(&toplevel);
            decoration.set_handler(Settled);
            decoration.send_set_mode(if properties.wants_frame() {
                ZxdgToplevelDecorationV1Mode::SERVER_SIDE
            } else {
                ZxdgToplevelDecorationV1Mode::CLIENT_SIDE
            });
            decoration
        });
        Some(Self {
            xdg_surface,
            kind: RoleKind::Toplevel(toplevel),
            decoration,
            gone: Cell::new(false),
        })
    }

    /// Makes a popup of `surface` at `place` of the X world, over `parent`.
    #[must_use]
    pub(crate) fn popup(
        own: &Own,
        bridge: &Rc<Bridge>,
        (id, surface): (WindowId, &Rc<WlSurface>),
        place: Place,
        parent: &Window,
    ) -> Option<Self> {
        let base = own.wm_base.as_ref()?;
        let parent_role = parent.role.as_ref()?;
        let xdg_surface = watched(base, bridge, id, surface);
        let positioner = positioner(base, &bridge.scale, place, parent.frame_place());
        let popup = xdg_surface.new_send_get_popup(Some(&parent_role.xdg_surface), &positioner);
        popup.set_handler(WindowWatch(bridge.clone(), id));
        positioner.send_destroy();
        let kind = RoleKind::Popup(popup, parent.id);
        Some(Self {
            xdg_surface,
            kind,
            decoration: None,
            gone: Cell::new(false),
        })
    }

    /// Moves a popup to `place` of the X world, over a window at `parent`.
    pub(crate) fn reposition(&self, own: &Own, scale: &Scale, place: Place, parent: Place) {
        let RoleKind::Popup(popup, _) = &self.kind else {
            return;
        };
        let Some(base) = own
            .wm_base
            .as_ref()
            .filter(|base| base.version() >= REPOSITION_SINCE)
        else {
            return;
        };
        let positioner = positioner(base, scale, place, parent);
        popup.send_reposition(&positioner, 0);
        positioner.send_destroy();
    }

    /// Takes the window off the screen, once.
    pub(crate) fn destroy(&self) {
        if self.gone.replace(true) {
            return;
        }
        if let Some(decoration) = &self.decoration {
            decoration.send_destroy();
        }
        match &self.kind {
            RoleKind::Toplevel(toplevel) => toplevel.send_destroy(),
            RoleKind::Popup(popup, _) => popup.send_destroy(),
        }
        self.xdg_surface.send_destroy();
    }

    /// Returns the window object, if this is one.
    #[must_use]
    pub(crate) fn as_toplevel(&self) -> Option<&Rc<XdgToplevel>> {
        match &self.kind {
            RoleKind::Toplevel(toplevel) => Some(toplevel),
            RoleKind::Popup(..) => None,
        }
    }
}

impl Window {
    /// Returns a window that is not to be seen yet.
    #[must_use]
    pub(crate) fn new(id: WindowId, place: Place, override_redirect: bool) -> Self {
        Self {
            id,
            override_redirect,
            place,
            properties: Properties::default(),
            mapped: false,
            awaited: None,
            awaited_number: None,
            surface: None,
            role: None,
            configured: false,
            states: States::default(),
        }
    }

    /// Returns where the window is without the shadow it draws: what popups are placed against.
    #[must_use]
    pub(crate) fn frame_place(&self) -> Place {
        let [left, right, top, bottom] = self.properties.shadow;
        let Place {
            x,
            y,
            width,
            height,
        } = self.place;
        Place {
            x: x + left,
            y: y + top,
            width: width - left - right,
            height: height - top - bottom,
        }
    }

    /// Takes the window off the screen and keeps Xwayland's drawing back until it has a role again.
    pub(crate) fn unshow(&mut self) {
        if let Some(role) = self.role.take() {
            role.destroy();
        }
        self.configured = false;
        if let Some(surface) = self.surface.take() {
            with_surface(&surface, crate::surface::Surface::hold_back);
        }
    }
}

/// Describes the one place where a popup may be: nothing may be adjusted, since the program takes for
/// granted that it got what it asked for.
fn positioner(
    base: &Rc<XdgWmBase>,
    scale: &Scale,
    place: Place,
    parent: Place,
) -> Rc<XdgPositioner> {
    let positioner = base.new_send_create_positioner();
    let (width, height) = scale.size_to_wayland((place.width, place.height));
    positioner.send_set_size(width, height);
    let (x, y) = (
        scale.to_wayland(place.x - parent.x),
        scale.to_wayland(place.y - parent.y),
    );
    positioner.send_set_anchor_rect(x, y, 1, 1);
    positioner.send_set_anchor(XdgPositionerAnchor::TOP_LEFT);
    positioner.send_set_gravity(XdgPositionerGravity::BOTTOM_RIGHT);
    positioner.send_set_constraint_adjustment(XdgPositionerConstraintAdjustment(0));
    positioner
}

fn watched(
    base: &Rc<XdgWmBase>,
    bridge: &Rc<Bridge>,
    id: WindowId,
    surface: &Rc<WlSurface>,
) -> Rc<XdgSurface> {
    let xdg_surface = base.new_send_get_xdg_surface(surface);
    xdg_surface.set_handler(WindowWatch(bridge.clone(), id));
    xdg_surface
}

/// Whatever mode the compositor settles on is fine: X windows can't draw frames of their own.
struct Settled;

impl ZxdgToplevelDecorationV1Handler for Settled {
    fn handle_configure(
        &mut self,
        _slf: &Rc<ZxdgToplevelDecorationV1>,
        _mode: ZxdgToplevelDecorationV1Mode,
    ) {
    }
}
