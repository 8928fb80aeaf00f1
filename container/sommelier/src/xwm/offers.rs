//! The Wayland half of the selections of X programs: what the host offers, and who wants ours.
//!
//! Handlers only note what happened; the window manager acts on it after the dispatch.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use wayland::channel::{FdRole, Shared};
use wl_proxy::fixed::Fixed;
use wl_proxy::object::ObjectUtils;
use wl_proxy::protocols::wayland::wl_data_device::{WlDataDevice, WlDataDeviceHandler};
use wl_proxy::protocols::wayland::wl_data_device_manager::WlDataDeviceManagerDndAction;
use wl_proxy::protocols::wayland::wl_data_offer::{WlDataOffer, WlDataOfferHandler};
use wl_proxy::protocols::wayland::wl_data_source::{WlDataSource, WlDataSourceHandler};
use wl_proxy::protocols::wayland::wl_surface::WlSurface;
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_device_v1::{
    ZwpPrimarySelectionDeviceV1, ZwpPrimarySelectionDeviceV1Handler,
};
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_offer_v1::{
    ZwpPrimarySelectionOfferV1, ZwpPrimarySelectionOfferV1Handler,
};
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_source_v1::{
    ZwpPrimarySelectionSourceV1, ZwpPrimarySelectionSourceV1Handler,
};

use super::bridge::{Bridge, Happening};
use super::selection::Kind;
use super::types::MAX_TYPES;

/// Something the host offers.
pub(crate) struct Offer {
    object: OfferObject,
    /// Its types.
    pub(crate) types: Vec<String>,
}

enum OfferObject {
    Clipboard(Rc<WlDataOffer>),
    Primary(Rc<ZwpPrimarySelectionOfferV1>),
}

impl Offer {
    /// Returns the offered type that serves best for `wanted`.
    pub(super) fn best_type(&self, wanted: &str) -> Option<String> {
        let has = |mime_type: &str| self.types.iter().any(|offered| offered == mime_type);
        let texts = [
            "text/plain;charset=utf-8",
            "UTF8_STRING",
            "text/plain",
            "STRING",
            "TEXT",
        ];
        if has(wanted) {
            Some(wanted.to_owned())
        } else if texts.contains(&wanted) {
            texts.into_iter().find(|text| has(text)).map(str::to_owned)
        } else {
            None
        }
    }

    /// Asks for the data and returns where it will come out.
    pub(super) fn receive(&self, channel: &Shared, mime_type: &str) -> Option<OwnedFd> {
        let (reader, writer) = std::io::pipe().ok()?;
        let writer = Rc::new(OwnedFd::from(writer));
        let sent = match &self.object {
            OfferObject::Clipboard(offer) => offer.try_send_receive(mime_type, &writer),
            OfferObject::Primary(offer) => offer.try_send_receive(mime_type, &writer),
        };
        sent.ok()?;
        channel.borrow_mut().expect_fd(FdRole::Pipe);
        let reader = OwnedFd::from(reader);
        rustix::io::ioctl_fionbio(&reader, true).ok()?;
        Some(reader)
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        match &self.object {
            OfferObject::Clipboard(offer) => offer.send_destroy(),
            OfferObject::Primary(offer) => offer.send_destroy(),
        }
    }
}

/// Hears of the host's selection and of who wants ours.
pub(super) struct Watch(pub(super) Rc<Bridge>, pub(super) Kind);

#[derive(Default)]
struct OfferWatch {
    types: RefCell<Vec<String>>,
}

impl OfferWatch {
    fn add(&self, mime_type: &str) {
        let mut types = self.types.borrow_mut();
        if types.len() < MAX_TYPES {
            types.push(mime_type.to_owned());
        }
    }
}

impl WlDataDeviceHandler for Watch {
    fn handle_data_offer(&mut self, _slf: &Rc<WlDataDevice>, id: &Rc<WlDataOffer>) {
        id.set_handler(OfferWatch::default());
    }

    fn handle_selection(&mut self, _slf: &Rc<WlDataDevice>, id: Option<&Rc<WlDataOffer>>) {
        let offer = id.and_then(|id| {
            let watch = id.try_get_handler_ref::<OfferWatch>().ok()?;
            let types = watch.types.take();
            Some(Rc::new(Offer {
                object: OfferObject::Clipboard(id.clone()),
                types,
            }))
        });
        self.0.note(Happening::Offered(self.1, offer));
    }

    fn handle_enter(
        &mut self,
        _slf: &Rc<WlDataDevice>,
        _serial: u32,
        _surface: &Rc<WlSurface>,
        _x: Fixed,
        _y: Fixed,
        id: Option<&Rc<WlDataOffer>>,
    ) {
        // Drags do not enter X windows; the offer is not needed.
        if let Some(id) = id {
            id.send_destroy();
        }
    }

    fn handle_leave(&mut self, _slf: &Rc<WlDataDevice>) {}

    fn handle_motion(&mut self, _slf: &Rc<WlDataDevice>, _time: u32, _x: Fixed, _y: Fixed) {}

    fn handle_drop(&mut self, _slf: &Rc<WlDataDevice>) {}
}

impl WlDataOfferHandler for OfferWatch {
    fn handle_offer(&mut self, _slf: &Rc<WlDataOffer>, mime_type: &str) {
        self.add(mime_type);
    }

    fn handle_source_actions(
        &mut self,
        _slf: &Rc<WlDataOffer>,
        _actions: WlDataDeviceManagerDndAction,
    ) {
    }

    fn handle_action(&mut self, _slf: &Rc<WlDataOffer>, _action: WlDataDeviceManagerDndAction) {}
}

impl WlDataSourceHandler for Watch {
    fn handle_send(&mut self, _slf: &Rc<WlDataSource>, mime_type: &str, fd: &Rc<OwnedFd>) {
        self.0
            .note(Happening::Wanted(self.1, mime_type.to_owned(), fd.clone()));
    }

    fn handle_cancelled(&mut self, _slf: &Rc<WlDataSource>) {
        self.0.note(Happening::Replaced(self.1));
    }

    fn handle_target(&mut self, _slf: &Rc<WlDataSource>, _mime_type: Option<&str>) {}
}

impl ZwpPrimarySelectionDeviceV1Handler for Watch {
    fn handle_data_offer(
        &mut self,
        _slf: &Rc<ZwpPrimarySelectionDeviceV1>,
        offer: &Rc<ZwpPrimarySelectionOfferV1>,
    ) {
        offer.set_handler(OfferWatch::default());
    }

    fn handle_selection(
        &mut self,
        _slf: &Rc<ZwpPrimarySelectionDeviceV1>,
        id: Option<&Rc<ZwpPrimarySelectionOfferV1>>,
    ) {
        let offer = id.and_then(|id| {
            let watch = id.try_get_handler_ref::<OfferWatch>().ok()?;
            let types = watch.types.take();
            Some(Rc::new(Offer {
                object: OfferObject::Primary(id.clone()),
                types,
            }))
        });
        self.0.note(Happening::Offered(self.1, offer));
    }
}

impl ZwpPrimarySelectionOfferV1Handler for OfferWatch {
    fn handle_offer(&mut self, _slf: &Rc<ZwpPrimarySelectionOfferV1>, mime_type: &str) {
        self.add(mime_type);
    }
}

impl ZwpPrimarySelectionSourceV1Handler for Watch {
    fn handle_send(
        &mut self,
        _slf: &Rc<ZwpPrimarySelectionSourceV1>,
        mime_type: &str,
        fd: &Rc<OwnedFd>,
    ) {
        self.0
            .note(Happening::Wanted(self.1, mime_type.to_owned(), fd.clone()));
    }

    fn handle_cancelled(&mut self, _slf: &Rc<ZwpPrimarySelectionSourceV1>) {
        self.0.note(Happening::Replaced(self.1));
    }
}
