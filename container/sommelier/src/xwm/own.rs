//! The globals that the window manager itself uses on the X session's connection to the host.

use std::cell::RefCell;
use std::rc::Rc;

use wl_proxy::object::{Object, ObjectCoreApi};
use wl_proxy::protocols::ObjectInterface;
use wl_proxy::protocols::wayland::wl_data_device_manager::WlDataDeviceManager;
use wl_proxy::protocols::wayland::wl_registry::{WlRegistry, WlRegistryHandler};
use wl_proxy::protocols::wayland::wl_seat::{WlSeat, WlSeatHandler};
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_device_manager_v1::ZwpPrimarySelectionDeviceManagerV1;
use wl_proxy::protocols::xdg_decoration_unstable_v1::zxdg_decoration_manager_v1::ZxdgDecorationManagerV1;
use wl_proxy::protocols::xdg_shell::xdg_wm_base::{XdgWmBase, XdgWmBaseHandler};
use wl_proxy::state::State;

use super::bridge::Bridge;

/// The versions used here.
const WM_BASE_VERSION: u32 = 3;
const DATA_VERSION: u32 = 3;
const SEAT_VERSION: u32 = 1;

/// What the host offers of what the window manager needs.
#[derive(Default)]
pub(crate) struct Own {
    /// Windows and popups.
    pub(crate) wm_base: Option<Rc<XdgWmBase>>,
    /// Who draws the frames.
    pub(crate) decorations: Option<Rc<ZxdgDecorationManagerV1>>,
    /// The clipboard.
    pub(crate) data: Option<Rc<WlDataDeviceManager>>,
    /// The primary selection.
    pub(crate) primary: Option<Rc<ZwpPrimarySelectionDeviceManagerV1>>,
    /// The first seat.
    pub(crate) seat: Option<Rc<WlSeat>>,
}

/// The same, filled in as the host announces it.
pub(crate) type Shared = Rc<RefCell<Own>>;

/// Asks the host of `state` for its globals.
#[must_use]
pub(crate) fn collect(state: &Rc<State>, bridge: &Rc<Bridge>) -> Shared {
    let own = Shared::default();
    state
        .display()
        .new_send_get_registry()
        .set_handler(Collector(own.clone(), bridge.clone()));
    own
}

struct Collector(Shared, Rc<Bridge>);

impl WlRegistryHandler for Collector {
    fn handle_global(
        &mut self,
        slf: &Rc<WlRegistry>,
        name: u32,
        interface: ObjectInterface,
        version: u32,
    ) {
        let mut own = self.0.borrow_mut();
        match interface {
            ObjectInterface::XdgWmBase => {
                let base: Rc<XdgWmBase> = bind(slf, name, version.min(WM_BASE_VERSION));
                base.set_handler(Pong);
                own.wm_base = Some(base);
            }
            ObjectInterface::WpViewporter => self.1.set_viewporter(bind(slf, name, 1)),
            ObjectInterface::ZxdgDecorationManagerV1 => own.decorations = Some(bind(slf, name, 1)),
            ObjectInterface::WlDataDeviceManager => {
                own.data = Some(bind(slf, name, version.min(DATA_VERSION)));
            }
            ObjectInterface::ZwpPrimarySelectionDeviceManagerV1 => {
                own.primary = Some(bind(slf, name, 1));
            }
            ObjectInterface::WlSeat if own.seat.is_none() => {
                let seat: Rc<WlSeat> = bind(slf, name, version.min(SEAT_VERSION));
                seat.set_handler(Quiet);
                own.seat = Some(seat);
            }
            _ => {}
        }
    }

    fn handle_global_remove(&mut self, _slf: &Rc<WlRegistry>, _name: u32) {}
}

fn bind<T: Object>(registry: &Rc<WlRegistry>, name: u32, version: u32) -> Rc<T> {
    let object: Rc<T> = registry.state().create_object(version);
    registry.send_bind(name, object.clone());
    object
}

struct Pong;

impl XdgWmBaseHandler for Pong {
    fn handle_ping(&mut self, slf: &Rc<XdgWmBase>, serial: u32) {
        slf.send_pong(serial);
    }
}

/// A seat whose events nobody waits for.
struct Quiet;

impl WlSeatHandler for Quiet {
    fn handle_capabilities(
        &mut self,
        _slf: &Rc<WlSeat>,
        _capabilities: wl_proxy::protocols::wayland::wl_seat::WlSeatCapability,
    ) {
    }

    fn handle_name(&mut self, _slf: &Rc<WlSeat>, _name: &str) {}
}
