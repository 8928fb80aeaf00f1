//! The registry of a guest's program: which globals it sees and binds, and the handlers they get.

use std::collections::HashMap;
use std::rc::Rc;

use wl_proxy::global_mapper::GlobalMapper;
use wl_proxy::object::{Object, ObjectCoreApi, ObjectRcUtils};
use wl_proxy::protocols::ObjectInterface as I;
use wl_proxy::protocols::wayland::wl_display::{WlDisplay, WlDisplayHandler};
use wl_proxy::protocols::wayland::wl_registry::{WlRegistry, WlRegistryHandler};

use super::input::SeatHandler;
use super::memory::{CompositorHandler, ShmHandler};
use super::primary::PrimaryManager;
use super::selection::DataManager;
use super::text_input::TextInputManager;
use super::windows::{ActivationHandler, IconManager, OutputHandler, WmBaseHandler};
use super::{Context, globals};

/// Handles `wl_display`.
pub struct DisplayHandler(pub Context);

impl WlDisplayHandler for DisplayHandler {
    fn handle_get_registry(&mut self, slf: &Rc<WlDisplay>, registry: &Rc<WlRegistry>) {
        slf.send_get_registry(registry);
        let context = self.0.clone();
        let handler = RegistryHandler {
            context,
            mapper: GlobalMapper::default(),
            names: HashMap::new(),
            next: 1,
        };
        registry.set_handler(handler);
    }
}

struct RegistryHandler {
    context: Context,
    mapper: GlobalMapper,
    /// What was announced under each of the guest's names.
    names: HashMap<u32, (I, u32)>,
    /// The mapper counts announced globals from one.
    next: u32,
}

impl WlRegistryHandler for RegistryHandler {
    fn handle_global(&mut self, slf: &Rc<WlRegistry>, name: u32, interface: I, version: u32) {
        match globals::cap(interface, &self.context.vm.policy) {
            None => self.mapper.ignore_global(name),
            Some(cap) => {
                let version = version.min(cap);
                self.names.insert(self.next, (interface, version));
                self.next += 1;
                self.mapper.forward_global(slf, name, interface, version);
            }
        }
    }

    fn handle_global_remove(&mut self, slf: &Rc<WlRegistry>, name: u32) {
        self.mapper.forward_global_remove(slf, name);
    }

    fn handle_bind(&mut self, slf: &Rc<WlRegistry>, name: u32, id: Rc<dyn Object>) {
        let announced = self.names.get(&name);
        let fits = announced.is_some_and(|(interface, version)| {
            *interface == id.interface() && (1..=*version).contains(&id.version())
        });
        if !fits {
            return self
                .context
                .refuse(slf.clone(), "bound a global that was not announced");
        }
        self.mapper.forward_bind(slf, name, &id);
        self.context.adopt(&id);
    }
}

impl Context {
    fn adopt(&self, object: &Rc<dyn Object>) {
        let context = self.clone();
        match object.interface() {
            I::WlCompositor => object.downcast::<wl_proxy::protocols::wayland::wl_compositor::WlCompositor>().set_handler(CompositorHandler(context)),
            I::WlShm => object.downcast::<wl_proxy::protocols::wayland::wl_shm::WlShm>().set_handler(ShmHandler(context)),
            I::WlSeat => object.downcast::<wl_proxy::protocols::wayland::wl_seat::WlSeat>().set_handler(SeatHandler(context)),
            I::WlOutput => object.downcast::<wl_proxy::protocols::wayland::wl_output::WlOutput>().set_handler(OutputHandler),
            I::XdgWmBase => object.downcast::<wl_proxy::protocols::xdg_shell::xdg_wm_base::XdgWmBase>().set_handler(WmBaseHandler(context)),
            I::XdgActivationV1 => object.downcast::<wl_proxy::protocols::xdg_activation_v1::xdg_activation_v1::XdgActivationV1>().set_handler(ActivationHandler(context)),
            I::XdgToplevelIconManagerV1 => object.downcast::<wl_proxy::protocols::xdg_toplevel_icon_v1::xdg_toplevel_icon_manager_v1::XdgToplevelIconManagerV1>().set_handler(IconManager(context)),
            I::WlDataDeviceManager => object.downcast::<wl_proxy::protocols::wayland::wl_data_device_manager::WlDataDeviceManager>().set_handler(DataManager(context)),
            I::ZwpPrimarySelectionDeviceManagerV1 => object.downcast::<wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_device_manager_v1::ZwpPrimarySelectionDeviceManagerV1>().set_handler(PrimaryManager(context)),
            I::ZwpTextInputManagerV3 => object.downcast::<wl_proxy::protocols::text_input_unstable_v3::zwp_text_input_manager_v3::ZwpTextInputManagerV3>().set_handler(TextInputManager),
            _ => {}
        }
    }
}
