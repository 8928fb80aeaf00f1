//! The primary selection between a guest and the host: what is selected, pasted by a middle click.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use wayland::channel::FdRole;
use wl_proxy::object::{ObjectCoreApi, ObjectUtils};
use wl_proxy::protocols::wayland::wl_seat::WlSeat;
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_device_manager_v1::{
    ZwpPrimarySelectionDeviceManagerV1, ZwpPrimarySelectionDeviceManagerV1Handler,
};
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_device_v1::{
    ZwpPrimarySelectionDeviceV1, ZwpPrimarySelectionDeviceV1Handler,
};
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_offer_v1::{
    ZwpPrimarySelectionOfferV1, ZwpPrimarySelectionOfferV1Handler,
};
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_source_v1::{
    ZwpPrimarySelectionSourceV1, ZwpPrimarySelectionSourceV1Handler,
};

use super::Context;
use super::local::{Listed, MAX_TYPES};
use spec::windows::{Direction, Mode};

/// Handles `zwp_primary_selection_device_manager_v1`.
pub(crate) struct PrimaryManager(pub(crate) Context);

impl ZwpPrimarySelectionDeviceManagerV1Handler for PrimaryManager {
    fn handle_create_source(
        &mut self,
        slf: &Rc<ZwpPrimarySelectionDeviceManagerV1>,
        id: &Rc<ZwpPrimarySelectionSourceV1>,
    ) {
        slf.send_create_source(id);
        let source = Rc::downgrade(id);
        let ask = move |mime: &str, fd: &Rc<OwnedFd>| {
            let source = source.upgrade();
            source.is_some_and(|source| source.try_send_send(mime, fd).is_ok())
        };
        let local = self.0.vm.locals.list(self.0.channel.clone(), ask);
        // The first type: an offer with it begins with all that the source has.
        id.send_offer(&local.mark());
        id.set_handler(Source {
            context: self.0.clone(),
            local,
        });
    }

    fn handle_get_device(
        &mut self,
        slf: &Rc<ZwpPrimarySelectionDeviceManagerV1>,
        id: &Rc<ZwpPrimarySelectionDeviceV1>,
        seat: &Rc<WlSeat>,
    ) {
        slf.send_get_device(id, seat);
        id.set_handler(Device(self.0.clone()));
    }
}

struct Source {
    context: Context,
    local: Listed,
}

impl ZwpPrimarySelectionSourceV1Handler for Source {
    fn handle_offer(&mut self, slf: &Rc<ZwpPrimarySelectionSourceV1>, mime_type: &str) {
        if self.local.add(mime_type) && self.context.may_offer(Direction::ToHost, mime_type) {
            slf.send_offer(mime_type);
        }
    }

    fn handle_send(
        &mut self,
        slf: &Rc<ZwpPrimarySelectionSourceV1>,
        mime_type: &str,
        fd: &Rc<OwnedFd>,
    ) {
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

impl ZwpPrimarySelectionDeviceV1Handler for Device {
    fn handle_data_offer(
        &mut self,
        slf: &Rc<ZwpPrimarySelectionDeviceV1>,
        offer: &Rc<ZwpPrimarySelectionOfferV1>,
    ) {
        // There are no drags here, so the guest may see the offer at once.
        slf.send_data_offer(offer);
        offer.set_handler(Offer {
            context: self.0.clone(),
            types: Vec::new(),
            local: None,
        });
    }

    fn handle_selection(
        &mut self,
        slf: &Rc<ZwpPrimarySelectionDeviceV1>,
        id: Option<&Rc<ZwpPrimarySelectionOfferV1>>,
    ) {
        let has_types = |offer: &&Rc<ZwpPrimarySelectionOfferV1>| {
            offer
                .try_get_handler_ref::<Offer>()
                .is_ok_and(|handler| !handler.types.is_empty())
        };
        slf.send_selection(id.filter(has_types));
    }

    fn handle_set_selection(
        &mut self,
        slf: &Rc<ZwpPrimarySelectionDeviceV1>,
        source: Option<&Rc<ZwpPrimarySelectionSourceV1>>,
        serial: u32,
    ) {
        if self.0.vm.mode(Direction::ToHost) != Mode::Off {
            slf.send_set_selection(source, serial);
        } else if let Some(source) = source {
            source.send_cancelled();
        }
    }
}

struct Offer {
    context: Context,
    /// What the guest was shown.
    types: Vec<String>,
    /// The source of this VM that it comes from.
    local: Option<u64>,
}

impl Offer {
    fn show(&mut self, offer: &Rc<ZwpPrimarySelectionOfferV1>, mime_type: &str) {
        if self.types.len() < MAX_TYPES && !self.types.iter().any(|shown| shown == mime_type) {
            self.types.push(mime_type.to_owned());
            offer.send_offer(mime_type);
        }
    }
}

impl ZwpPrimarySelectionOfferV1Handler for Offer {
    fn handle_offer(&mut self, slf: &Rc<ZwpPrimarySelectionOfferV1>, mime_type: &str) {
        let locals = self.context.vm.locals.clone();
        if let Some(number) = locals.marked(mime_type) {
            self.local = Some(number);
            let types = locals.types(number).unwrap_or_default();
            types.iter().for_each(|mime_type| self.show(slf, mime_type));
        } else if self.context.may_offer(Direction::ToGuest, mime_type) {
            self.show(slf, mime_type);
        }
    }

    fn handle_receive(
        &mut self,
        slf: &Rc<ZwpPrimarySelectionOfferV1>,
        mime_type: &str,
        fd: &Rc<OwnedFd>,
    ) {
        if let Some(number) = self.local {
            return self.context.vm.locals.ask(number, mime_type, fd);
        }
        let (offer, fd, name) = (slf.clone(), fd.clone(), mime_type.to_owned());
        self.context
            .transfer(Direction::ToGuest, mime_type, move || {
                if offer.server_id().is_some() {
                    offer.send_receive(&name, &fd);
                }
            });
    }
}
