//! Hangs the handlers of the container side on the objects a client binds. Policy is not made here:
//! whatever the host announces is passed on.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use wayland::channel::{FdRole, Shared};
use wl_proxy::global_mapper::GlobalMapper;
use wl_proxy::object::{Object, ObjectCoreApi, ObjectRcUtils};
use wl_proxy::protocols::ObjectInterface;
use wl_proxy::protocols::presentation_time::wp_presentation::WpPresentation;
use wl_proxy::protocols::viewporter::wp_viewport::{WpViewport, WpViewportHandler};
use wl_proxy::protocols::viewporter::wp_viewporter::{WpViewporter, WpViewporterHandler};
use wl_proxy::protocols::wayland::wl_compositor::WlCompositor;
use wl_proxy::protocols::wayland::wl_data_device::{WlDataDevice, WlDataDeviceHandler};
use wl_proxy::protocols::wayland::wl_data_device_manager::{
    WlDataDeviceManager, WlDataDeviceManagerHandler,
};
use wl_proxy::protocols::wayland::wl_data_offer::{WlDataOffer, WlDataOfferHandler};
use wl_proxy::protocols::wayland::wl_display::{WlDisplay, WlDisplayHandler};
use wl_proxy::protocols::relative_pointer_unstable_v1::zwp_relative_pointer_manager_v1::ZwpRelativePointerManagerV1;
use wl_proxy::protocols::wayland::wl_output::WlOutput;
use wl_proxy::protocols::xdg_output_unstable_v1::zxdg_output_manager_v1::ZxdgOutputManagerV1;
use wl_proxy::protocols::wayland::wl_registry::{WlRegistry, WlRegistryHandler};
use wl_proxy::protocols::wayland::wl_seat::WlSeat;
use wl_proxy::protocols::wayland::wl_shm::WlShm;
use wl_proxy::protocols::wayland::wl_surface::WlSurface;
use wl_proxy::protocols::xwayland_shell_v1::xwayland_shell_v1::XwaylandShellV1;
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_device_manager_v1::{
    ZwpPrimarySelectionDeviceManagerV1, ZwpPrimarySelectionDeviceManagerV1Handler,
};
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_device_v1::{
    ZwpPrimarySelectionDeviceV1, ZwpPrimarySelectionDeviceV1Handler,
};
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_offer_v1::{
    ZwpPrimarySelectionOfferV1, ZwpPrimarySelectionOfferV1Handler,
};

use crate::presentation::PresentationHandler;
use crate::shm::{Pools, ShmHandler};
use crate::surface::{CompositorHandler, Surfaces, with_surface};
use crate::xwm::bridge::{Bridge, InputWatch, ShellHandler};
use crate::xwm::scale::Converter;

/// What the handlers of one client share.
#[derive(Clone)]
pub(crate) struct Context {
    /// The way to the host.
    pub(crate) channel: Shared,
    /// The client's shared memory.
    pub(crate) pools: Rc<Pools>,
    /// The client's surfaces.
    pub(crate) surfaces: Rc<Surfaces>,
    /// The window manager to tell, if the client is Xwayland.
    pub(crate) bridge: Option<Rc<Bridge>>,
}

impl Context {
    /// Hangs this side's handlers on an object that has just been bound.
    pub(crate) fn adopt(&self, object: &Rc<dyn Object>) {
        match object.interface() {
            ObjectInterface::WlShm => {
                object
                    .downcast::<WlShm>()
                    .set_handler(ShmHandler(self.pools.clone()));
            }
            ObjectInterface::WlCompositor => {
                let handler = CompositorHandler(self.surfaces.clone());
                object.downcast::<WlCompositor>().set_handler(handler);
            }
            ObjectInterface::WpViewporter => {
                object
                    .downcast::<WpViewporter>()
                    .set_handler(ViewporterHandler);
            }
            ObjectInterface::WpPresentation => {
                let handler = PresentationHandler(self.channel.clone());
                object.downcast::<WpPresentation>().set_handler(handler);
            }
            ObjectInterface::WlDataDeviceManager => {
                let handler = DataManager(self.channel.clone());
                object
                    .downcast::<WlDataDeviceManager>()
                    .set_handler(handler);
            }
            ObjectInterface::ZwpPrimarySelectionDeviceManagerV1 => {
                let handler = DataManager(self.channel.clone());
                object
                    .downcast::<ZwpPrimarySelectionDeviceManagerV1>()
                    .set_handler(handler);
            }
            interface => {
                if let Some(bridge) = &self.bridge {
                    adopt_for_x(bridge, interface, object);
                }
            }
        }
    }
}

/// Hangs the handlers on what only Xwayland needs them for.
fn adopt_for_x(bridge: &Rc<Bridge>, interface: ObjectInterface, object: &Rc<dyn Object>) {
    let converter = Converter(bridge.scale.clone());
    match interface {
        ObjectInterface::WlSeat => {
            object
                .downcast::<WlSeat>()
                .set_handler(InputWatch(bridge.clone()));
        }
        ObjectInterface::XwaylandShellV1 => {
            object
                .downcast::<XwaylandShellV1>()
                .set_handler(ShellHandler(bridge.clone()));
        }
        ObjectInterface::WlOutput => object.downcast::<WlOutput>().set_handler(converter),
        ObjectInterface::ZxdgOutputManagerV1 => {
            object
                .downcast::<ZxdgOutputManagerV1>()
                .set_handler(converter);
        }
        ObjectInterface::ZwpRelativePointerManagerV1 => {
            object
                .downcast::<ZwpRelativePointerManagerV1>()
                .set_handler(converter);
        }
        _ => {}
    }
}

/// Handles `wl_display` of a client.
pub(crate) struct DisplayHandler(pub(crate) Context);

impl WlDisplayHandler for DisplayHandler {
    fn handle_get_registry(&mut self, slf: &Rc<WlDisplay>, registry: &Rc<WlRegistry>) {
        slf.send_get_registry(registry);
        let mut mapper = GlobalMapper::default();
        if self.0.bridge.is_some() {
            mapper.add_synthetic_global(registry, ObjectInterface::XwaylandShellV1, 1);
        }
        registry.set_handler(RegistryHandler {
            context: self.0.clone(),
            mapper,
        });
    }
}

struct RegistryHandler {
    context: Context,
    mapper: GlobalMapper,
}

impl WlRegistryHandler for RegistryHandler {
    fn handle_bind(&mut self, slf: &Rc<WlRegistry>, name: u32, id: Rc<dyn Object>) {
        self.mapper.forward_bind(slf, name, &id);
        self.context.adopt(&id);
    }

    fn handle_global(
        &mut self,
        slf: &Rc<WlRegistry>,
        name: u32,
        interface: ObjectInterface,
        version: u32,
    ) {
        self.mapper.forward_global(slf, name, interface, version);
    }

    fn handle_global_remove(&mut self, slf: &Rc<WlRegistry>, name: u32) {
        self.mapper.forward_global_remove(slf, name);
    }
}

struct ViewporterHandler;

impl WpViewporterHandler for ViewporterHandler {
    fn handle_get_viewport(
        &mut self,
        slf: &Rc<WpViewporter>,
        id: &Rc<WpViewport>,
        surface: &Rc<WlSurface>,
    ) {
        slf.send_get_viewport(id, surface);
        with_surface(surface, |surface| surface.set_viewport(true));
        id.set_handler(ViewportHandler(surface.clone()));
    }
}

struct ViewportHandler(Rc<WlSurface>);

impl WpViewportHandler for ViewportHandler {
    fn handle_destroy(&mut self, slf: &Rc<WpViewport>) {
        with_surface(&self.0, |surface| surface.set_viewport(false));
        slf.send_destroy();
    }
}

/// Says of every descriptor of a selection or a drag that it is a pipe.
#[derive(Clone)]
struct DataManager(Shared);

impl DataManager {
    fn expect_pipe<E>(&self, sent: &Result<(), E>) {
        if sent.is_ok() {
            self.0.borrow_mut().expect_fd(FdRole::Pipe);
        }
    }
}

impl WlDataDeviceManagerHandler for DataManager {
    fn handle_get_data_device(
        &mut self,
        slf: &Rc<WlDataDeviceManager>,
        id: &Rc<WlDataDevice>,
        seat: &Rc<WlSeat>,
    ) {
        slf.send_get_data_device(id, seat);
        id.set_handler(self.clone());
    }
}

impl WlDataDeviceHandler for DataManager {
    fn handle_data_offer(&mut self, slf: &Rc<WlDataDevice>, id: &Rc<WlDataOffer>) {
        slf.send_data_offer(id);
        id.set_handler(self.clone());
    }
}

impl WlDataOfferHandler for DataManager {
    fn handle_receive(&mut self, slf: &Rc<WlDataOffer>, mime_type: &str, fd: &Rc<OwnedFd>) {
        self.expect_pipe(&slf.try_send_receive(mime_type, fd));
    }
}

impl ZwpPrimarySelectionDeviceManagerV1Handler for DataManager {
    fn handle_get_device(
        &mut self,
        slf: &Rc<ZwpPrimarySelectionDeviceManagerV1>,
        id: &Rc<ZwpPrimarySelectionDeviceV1>,
        seat: &Rc<WlSeat>,
    ) {
        slf.send_get_device(id, seat);
        id.set_handler(self.clone());
    }
}

impl ZwpPrimarySelectionDeviceV1Handler for DataManager {
    fn handle_data_offer(
        &mut self,
        slf: &Rc<ZwpPrimarySelectionDeviceV1>,
        offer: &Rc<ZwpPrimarySelectionOfferV1>,
    ) {
        slf.send_data_offer(offer);
        offer.set_handler(self.clone());
    }
}

impl ZwpPrimarySelectionOfferV1Handler for DataManager {
    fn handle_receive(
        &mut self,
        slf: &Rc<ZwpPrimarySelectionOfferV1>,
        mime_type: &str,
        fd: &Rc<OwnedFd>,
    ) {
        self.expect_pipe(&slf.try_send_receive(mime_type, fd));
    }
}
