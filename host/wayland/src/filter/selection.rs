//! The clipboard and drag and drop between a guest and the host (`wl_data_device`).
//!
//! An offer of the host is shown to the guest only once it is clear what it is for, a selection or a
//! drag, and with only those types that may cross.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use wayland::channel::FdRole;
use wl_proxy::fixed::Fixed;
use wl_proxy::object::{ObjectCoreApi, ObjectUtils};
use wl_proxy::protocols::wayland::wl_data_device::{WlDataDevice, WlDataDeviceHandler};
use wl_proxy::protocols::wayland::wl_data_device_manager::{
    WlDataDeviceManager, WlDataDeviceManagerDndAction, WlDataDeviceManagerHandler,
};
use wl_proxy::protocols::wayland::wl_data_offer::{WlDataOffer, WlDataOfferHandler};
use wl_proxy::protocols::wayland::wl_data_source::{WlDataSource, WlDataSourceHandler};
use wl_proxy::protocols::wayland::wl_seat::WlSeat;
use wl_proxy::protocols::wayland::wl_surface::WlSurface;

use super::Context;
use super::local::{Listed, MAX_TYPES};
use spec::windows::Direction;

/// Handles `wl_data_device_manager`.
pub(crate) struct DataManager(pub(crate) Context);

impl WlDataDeviceManagerHandler for DataManager {
    fn handle_create_data_source(&mut self, slf: &Rc<WlDataDeviceManager>, id: &Rc<WlDataSource>) {
        slf.send_create_data_source(id);
        let source = Rc::downgrade(id);
        let ask = move |mime: &str, fd: &Rc<OwnedFd>| {
            let source = source.upgrade();
            source.is_some_and(|source| source.try_send_send(mime, fd).is_ok())
        };
        let local = self.0.vm.locals.list(self.0.channel.clone(), ask);
        id.send_offer(&local.mark());
        id.set_handler(Source {
            context: self.0.clone(),
            local,
        });
    }

    fn handle_get_data_device(
        &mut self,
        slf: &Rc<WlDataDeviceManager>,
        id: &Rc<WlDataDevice>,
        seat: &Rc<WlSeat>,
    ) {
        slf.send_get_data_device(id, seat);
        id.set_handler(Device(self.0.clone()));
    }
}

struct Source {
    context: Context,
    local: Listed,
}

impl WlDataSourceHandler for Source {
    fn handle_offer(&mut self, slf: &Rc<WlDataSource>, mime_type: &str) {
        if self.local.add(mime_type) && self.context.may_offer(Direction::ToHost, mime_type) {
            slf.send_offer(mime_type);
        }
    }

    fn handle_send(&mut self, slf: &Rc<WlDataSource>, mime_type: &str, fd: &Rc<OwnedFd>) {
        let (source, fd, channel) = (slf.clone(), fd.clone(), self.context.channel.clone());
        let name = mime_type.to_owned();
        self.context
            .transfer(Direction::ToHost, mime_type, move || {
                if source.try_send_send(&name, &fd).is_ok() {
                    channel.borrow_mut().expect_fd(FdRole::Pipe);
                }
            });
    }
}

struct Device(Context);

impl WlDataDeviceHandler for Device {
    fn handle_data_offer(&mut self, _slf: &Rc<WlDataDevice>, id: &Rc<WlDataOffer>) {
        let hidden = RefCell::new(Some(Hidden::default()));
        id.set_handler(Offer {
            context: self.0.clone(),
            hidden,
            local: Cell::new(None),
        });
    }

    fn handle_selection(&mut self, slf: &Rc<WlDataDevice>, id: Option<&Rc<WlDataOffer>>) {
        slf.send_selection(id.filter(|offer| show(slf, offer)));
    }

    fn handle_enter(
        &mut self,
        slf: &Rc<WlDataDevice>,
        serial: u32,
        surface: &Rc<WlSurface>,
        x: Fixed,
        y: Fixed,
        id: Option<&Rc<WlDataOffer>>,
    ) {
        slf.send_enter(serial, surface, x, y, id.filter(|offer| show(slf, offer)));
    }

    fn handle_set_selection(
        &mut self,
        slf: &Rc<WlDataDevice>,
        source: Option<&Rc<WlDataSource>>,
        serial: u32,
    ) {
        if self.0.vm.mode(Direction::ToHost) != spec::windows::Mode::Off {
            slf.send_set_selection(source, serial);
        } else if let Some(source) = source {
            source.send_cancelled();
        }
    }
}

/// What is known of an offer the guest has not been shown.
#[derive(Default)]
struct Hidden {
    types: Vec<String>,
    source_actions: Option<WlDataDeviceManagerDndAction>,
    action: Option<WlDataDeviceManagerDndAction>,
}

struct Offer {
    context: Context,
    hidden: RefCell<Option<Hidden>>,
    /// The source of this VM that it comes from.
    local: Cell<Option<u64>>,
}

/// Shows `offer` to the guest if it has a type that it may see; otherwise it is given up.
fn show(device: &Rc<WlDataDevice>, offer: &Rc<WlDataOffer>) -> bool {
    let Ok(handler) = offer.try_get_handler_ref::<Offer>() else {
        return false;
    };
    let Some(mut hidden) = handler.hidden.take() else {
        return true;
    };
    if let Some(number) = handler.local.get() {
        hidden.types = handler.context.vm.locals.types(number).unwrap_or_default();
    }
    if hidden.types.is_empty() {
        offer.send_destroy();
        return false;
    }
    device.send_data_offer(offer);
    for mime_type in &hidden.types {
        offer.send_offer(mime_type);
    }
    if let Some(actions) = hidden.source_actions {
        offer.send_source_actions(actions);
    }
    if let Some(action) = hidden.action {
        offer.send_action(action);
    }
    true
}

impl WlDataOfferHandler for Offer {
    fn handle_offer(&mut self, slf: &Rc<WlDataOffer>, mime_type: &str) {
        if let Some(number) = self.context.vm.locals.marked(mime_type) {
            self.local.set(Some(number));
            return;
        }
        if !self.context.may_offer(Direction::ToGuest, mime_type) {
            return;
        }
        match self.hidden.get_mut() {
            Some(hidden) if hidden.types.len() < MAX_TYPES => {
                hidden.types.push(mime_type.to_owned());
            }
            Some(_) => {}
            None => slf.send_offer(mime_type),
        }
    }

    fn handle_source_actions(
        &mut self,
        slf: &Rc<WlDataOffer>,
        source_actions: WlDataDeviceManagerDndAction,
    ) {
        match self.hidden.get_mut() {
            Some(hidden) => hidden.source_actions = Some(source_actions),
            None => slf.send_source_actions(source_actions),
        }
    }

    fn handle_action(&mut self, slf: &Rc<WlDataOffer>, dnd_action: WlDataDeviceManagerDndAction) {
        match self.hidden.get_mut() {
            Some(hidden) => hidden.action = Some(dnd_action),
            None => slf.send_action(dnd_action),
        }
    }

    fn handle_receive(&mut self, slf: &Rc<WlDataOffer>, mime_type: &str, fd: &Rc<OwnedFd>) {
        if let Some(number) = self.local.get() {
            return self.context.vm.locals.ask(number, mime_type, fd);
        }
        let (offer, fd, name) = (slf.clone(), fd.clone(), mime_type.to_owned());
        self.context
            .transfer(Direction::ToGuest, mime_type, move || {
                // The program may have given the offer up while the user thought about it.
                if offer.server_id().is_some() {
                    offer.send_receive(&name, &fd);
                }
            });
    }
}
