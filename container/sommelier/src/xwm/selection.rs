//! CLIPBOARD and PRIMARY between X programs and the host, in the container.
//!
//! ```text
//!  X program owns it ─▶ XFixes tells ─▶ TARGETS asked ─▶ a Wayland source with the same types
//!  host owns it ─▶ a Wayland offer ─▶ our window owns the X selection until the offer is gone
//! ```
//! No loop: what our window owns is never offered to Wayland, and while our source is the selection,
//! the offer that comes back is our own and is ignored.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::event::PollFd;
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
use x11rb::protocol::Event;
use x11rb::protocol::xfixes::{ConnectionExt as _, SelectionEventMask, SelectionNotifyEvent};
use x11rb::protocol::xproto::{
    Atom, AtomEnum, ConnectionExt as _, EventMask, PropMode, SELECTION_NOTIFY_EVENT,
    SelectionNotifyEvent as ConvertedEvent, SelectionRequestEvent,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;
use x11rb::{CURRENT_TIME, NONE};

use super::XwmError;
use super::atoms::Atoms;
use super::bridge::{Bridge, Happening, WindowId};
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::own::Own;
use super::setup::hidden_window;

/// The most types of one selection, as on the host.
const MAX_TYPES: usize = 128;

/// The most transfers at once in one direction; beyond it X programs get a refusal.
const MAX_TRANSFERS: usize = 64;

/// Which selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What was copied.
    Clipboard,
    /// What is selected.
    Primary,
}

/// Something the host offers.
pub struct Offer {
    object: OfferObject,
    /// Its types.
    pub types: Vec<String>,
}

enum OfferObject {
    Clipboard(Rc<WlDataOffer>),
    Primary(Rc<ZwpPrimarySelectionOfferV1>),
}

enum Source {
    Clipboard(Rc<WlDataSource>),
    Primary(Rc<ZwpPrimarySelectionSourceV1>),
}

enum Device {
    Clipboard(Rc<WlDataDevice>),
    Primary(Rc<ZwpPrimarySelectionDeviceV1>),
}

/// One selection on both sides.
struct Side {
    kind: Kind,
    atom: Atom,
    /// The window that owns the X selection on behalf of the host, and asks on behalf of it.
    window: WindowId,
    device: Option<Device>,
    offer: Option<Rc<Offer>>,
    source: Option<Source>,
    /// The types of the X selection, with the X name of each.
    targets: Vec<(String, Atom)>,
}

/// Both selections and the transfers under way.
pub struct Selections {
    x: Rc<RustConnection>,
    atoms: Rc<Atoms>,
    channel: Shared,
    bridge: Rc<Bridge>,
    root: WindowId,
    sides: [Side; 2],
    incoming: Vec<Incoming>,
    outgoing: Vec<Outgoing>,
}

impl Selections {
    /// Starts to watch both selections of the server.
    ///
    /// # Errors
    /// When the X server is gone.
    pub fn new(
        x: Rc<RustConnection>,
        atoms: Rc<Atoms>,
        channel: Shared,
        bridge: Rc<Bridge>,
        root: WindowId,
    ) -> Result<Self, XwmError> {
        let side = |kind, atom| -> Result<Side, XwmError> {
            let window = hidden_window(&x, root)?;
            let events = SelectionEventMask::SET_SELECTION_OWNER
                | SelectionEventMask::SELECTION_WINDOW_DESTROY
                | SelectionEventMask::SELECTION_CLIENT_CLOSE;
            x.xfixes_select_selection_input(window, atom, events)?;
            let (device, offer, source, targets) = (None, None, None, Vec::new());
            Ok(Side { kind, atom, window, device, offer, source, targets })
        };
        let sides = [side(Kind::Clipboard, atoms.CLIPBOARD)?, side(Kind::Primary, atoms.PRIMARY)?];
        let (incoming, outgoing) = (Vec::new(), Vec::new());
        Ok(Self { x, atoms, channel, bridge, root, sides, incoming, outgoing })
    }

    /// Gets the devices as soon as the host has announced what they need.
    pub fn connect(&mut self, own: &Own) {
        let Some(seat) = &own.seat else { return };
        let [clipboard, primary] = &mut self.sides;
        if clipboard.device.is_none()
            && let Some(manager) = &own.data
        {
            let device = manager.new_send_get_data_device(seat);
            device.set_handler(Watch(self.bridge.clone(), Kind::Clipboard));
            clipboard.device = Some(Device::Clipboard(device));
        }
        if primary.device.is_none()
            && let Some(manager) = &own.primary
        {
            let device = manager.new_send_get_device(seat);
            device.set_handler(Watch(self.bridge.clone(), Kind::Primary));
            primary.device = Some(Device::Primary(device));
        }
        for side in &mut self.sides {
            if !side.targets.is_empty() && side.source.is_none() && side.offer.is_none() {
                side.publish(own, &self.bridge);
            }
        }
    }

    /// Adds what transfers wait for to `fds`.
    pub fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        self.incoming.iter().for_each(|transfer| transfer.interest(fds));
        self.outgoing.iter().for_each(|transfer| transfer.interest(fds));
    }

    /// Moves what can be moved.
    ///
    /// # Errors
    /// When the X server is gone.
    pub fn service(&mut self) -> Result<(), XwmError> {
        for transfer in &mut self.incoming {
            transfer.service(&self.x, &self.atoms)?;
        }
        self.incoming.retain(|transfer| !transfer.is_done());
        for transfer in &mut self.outgoing {
            transfer.service(&self.x)?;
        }
        self.outgoing.retain(|transfer| !transfer.is_done());
        Ok(())
    }

    /// Handles an event, if it concerns a selection.
    ///
    /// # Errors
    /// When the X server is gone.
    pub fn handle_event(&mut self, event: &Event) -> Result<bool, XwmError> {
        match event {
            Event::XfixesSelectionNotify(event) => self.owner_changed(event)?,
            Event::SelectionRequest(event) => self.data_asked(event)?,
            Event::SelectionNotify(event) => self.converted(event)?,
            Event::PropertyNotify(event) => {
                let mut ours = false;
                for transfer in &mut self.outgoing {
                    ours |= transfer.property_changed(&self.x, &self.atoms, event)?;
                }
                for transfer in &mut self.incoming {
                    ours |= transfer.property_changed(event);
                }
                self.service()?;
                return Ok(ours);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn side(&mut self, atom: Atom) -> Option<&mut Side> {
        self.sides.iter_mut().find(|side| side.atom == atom)
    }

    fn owner_changed(&mut self, event: &SelectionNotifyEvent) -> Result<(), XwmError> {
        let (x, atoms) = (self.x.clone(), self.atoms.clone());
        let Some(side) = self.side(event.selection) else { return Ok(()) };
        if event.owner == side.window {
            return Ok(());
        }
        side.targets.clear();
        side.offer = None;
        if event.owner == NONE {
            side.withdraw();
        } else {
            let (window, atom) = (side.window, side.atom);
            x.convert_selection(window, atom, atoms.TARGETS, atoms.SOMMELIER_DATA, CURRENT_TIME)?;
        }
        Ok(())
    }

    /// Handles the list of types, or the data of a transfer, that an X program has delivered.
    fn converted(&mut self, event: &ConvertedEvent) -> Result<(), XwmError> {
        for transfer in &mut self.outgoing {
            transfer.converted(&self.x, &self.atoms, event)?;
        }
        let (x, atoms) = (self.x.clone(), self.atoms.clone());
        let Some(side) = self.side(event.selection) else { return Ok(()) };
        if event.requestor != side.window || event.target != atoms.TARGETS {
            return Ok(());
        }
        let types = if event.property == NONE {
            // Programs of the old days do not know TARGETS, and have text.
            vec![atoms.STRING]
        } else {
            let words = u32::try_from(MAX_TYPES).expect("a small number");
            let property = atoms.SOMMELIER_DATA;
            let list = x.get_property(true, side.window, property, AtomEnum::ANY, 0, words)?.reply();
            list.ok().and_then(|list| Some(list.value32()?.collect())).unwrap_or_default()
        };
        side.targets = types_of(&x, &atoms, &types);
        // What was published before is no longer what the program has.
        side.withdraw();
        Ok(())
    }

    /// Handles an X program that wants what the host has.
    fn data_asked(&mut self, event: &SelectionRequestEvent) -> Result<(), XwmError> {
        let (x, atoms) = (self.x.clone(), self.atoms.clone());
        // Clients of before 1989 name no property (ICCCM 2.2).
        let property = if event.property == NONE { event.target } else { event.property };
        let full = self.incoming.len() >= MAX_TRANSFERS;
        let channel = self.channel.clone();
        let Some(side) = self.side(event.selection) else { return Ok(()) };
        let Some(offer) = side.offer.clone() else { return answer(&x, event, NONE) };
        if event.target == atoms.TARGETS {
            let mut list = vec![atoms.TARGETS, atoms.TIMESTAMP];
            for mime_type in &offer.types {
                list.extend(atoms_of(&x, &atoms, mime_type)?);
            }
            list.dedup();
            x.change_property32(PropMode::REPLACE, event.requestor, property, AtomEnum::ATOM, &list)?;
            return answer(&x, event, property);
        }
        let mime_type = mime_of(&x, &atoms, event.target)?;
        let known = mime_type.and_then(|wanted| offer.best_type(&wanted));
        let Some(mime_type) = known.filter(|_| !full) else { return answer(&x, event, NONE) };
        match offer.receive(&channel, &mime_type) {
            Some(pipe) => self.incoming.push(Incoming::new(pipe, *event, property)),
            None => answer(&x, event, NONE)?,
        }
        Ok(())
    }

    /// Handles what the host has to offer now.
    ///
    /// # Errors
    /// When the X server is gone.
    pub fn offered(&mut self, kind: Kind, offer: Option<Rc<Offer>>) -> Result<(), XwmError> {
        let x = self.x.clone();
        let side = &mut self.sides[kind as usize];
        if side.source.is_some() {
            // Our own selection, on its way back.
            return Ok(());
        }
        let owner = if offer.is_some() { side.window } else { NONE };
        if offer.is_some() || side.offer.is_some() {
            x.set_selection_owner(owner, side.atom, CURRENT_TIME)?;
        }
        side.offer = offer;
        if owner != NONE {
            side.targets.clear();
        }
        Ok(())
    }

    /// Handles somebody on the Wayland side who wants the X selection's data.
    ///
    /// # Errors
    /// When the X server is gone.
    pub fn wanted(
        &mut self,
        kind: Kind,
        mime_type: &str,
        fd: &Rc<OwnedFd>,
    ) -> Result<(), XwmError> {
        let side = &self.sides[kind as usize];
        let target = side.targets.iter().find(|(known, _)| known == mime_type);
        let Some((_, target)) = target.filter(|_| self.outgoing.len() < MAX_TRANSFERS) else {
            return Ok(());
        };
        let Ok(fd) = fd.as_fd().try_clone_to_owned() else { return Ok(()) };
        let window = hidden_window(&self.x, self.root)?;
        let data = self.atoms.SOMMELIER_DATA;
        self.x.convert_selection(window, side.atom, *target, data, CURRENT_TIME)?;
        self.outgoing.push(Outgoing::new(window, data, fd));
        Ok(())
    }

    /// Handles the end of our selection on the Wayland side.
    pub fn replaced(&mut self, kind: Kind) {
        let side = &mut self.sides[kind as usize];
        side.targets.clear();
        side.withdraw();
    }
}

impl Side {
    /// Makes the X selection the Wayland one.
    fn publish(&mut self, own: &Own, bridge: &Rc<Bridge>) {
        let watch = Watch(bridge.clone(), self.kind);
        let types = self.targets.iter().map(|(mime_type, _)| mime_type);
        let serial = bridge.serial.get();
        match &self.device {
            Some(Device::Clipboard(device)) => {
                let Some(manager) = &own.data else { return };
                let source = manager.new_send_create_data_source();
                source.set_handler(watch);
                types.for_each(|mime_type| source.send_offer(mime_type));
                device.send_set_selection(Some(&source), serial);
                self.source = Some(Source::Clipboard(source));
            }
            Some(Device::Primary(device)) => {
                let Some(manager) = &own.primary else { return };
                let source = manager.new_send_create_source();
                source.set_handler(watch);
                types.for_each(|mime_type| source.send_offer(mime_type));
                device.send_set_selection(Some(&source), serial);
                self.source = Some(Source::Primary(source));
            }
            None => {}
        }
    }

    fn withdraw(&mut self) {
        match self.source.take() {
            Some(Source::Clipboard(source)) => source.send_destroy(),
            Some(Source::Primary(source)) => source.send_destroy(),
            None => {}
        }
    }
}

impl Offer {
    /// Returns the offered type that serves best for `wanted`.
    fn best_type(&self, wanted: &str) -> Option<String> {
        let has = |mime_type: &str| self.types.iter().any(|offered| offered == mime_type);
        let texts = ["text/plain;charset=utf-8", "UTF8_STRING", "text/plain", "STRING", "TEXT"];
        if has(wanted) {
            Some(wanted.to_owned())
        } else if texts.contains(&wanted) {
            texts.into_iter().find(|text| has(text)).map(str::to_owned)
        } else {
            None
        }
    }

    /// Asks for the data and returns where it will come out.
    fn receive(&self, channel: &Shared, mime_type: &str) -> Option<OwnedFd> {
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

/// Tells an X program that its data is in `property`, or that there is none.
pub fn answer(
    x: &RustConnection,
    request: &SelectionRequestEvent,
    property: Atom,
) -> Result<(), XwmError> {
    let event = ConvertedEvent {
        response_type: SELECTION_NOTIFY_EVENT,
        sequence: 0,
        time: request.time,
        requestor: request.requestor,
        selection: request.selection,
        target: request.target,
        property,
    };
    x.send_event(false, request.requestor, EventMask::NO_EVENT, event)?;
    Ok(())
}

/// Returns the Wayland types for X targets, each with the target to ask for.
fn types_of(x: &RustConnection, atoms: &Atoms, targets: &[Atom]) -> Vec<(String, Atom)> {
    let mut types: Vec<(String, Atom)> = Vec::new();
    for target in targets.iter().take(MAX_TYPES) {
        if let Ok(Some(mime_type)) = mime_of(x, atoms, *target)
            && !types.iter().any(|(known, _)| *known == mime_type)
        {
            types.push((mime_type, *target));
        }
    }
    types
}

/// Returns the Wayland type that an X target stands for.
fn mime_of(x: &RustConnection, atoms: &Atoms, target: Atom) -> Result<Option<String>, XwmError> {
    if target == atoms.UTF8_STRING {
        return Ok(Some("text/plain;charset=utf-8".to_owned()));
    }
    if target == atoms.STRING || target == atoms.TEXT {
        return Ok(Some("text/plain".to_owned()));
    }
    let name = x.get_atom_name(target)?.reply().map(|reply| reply.name).unwrap_or_default();
    Ok(String::from_utf8(name).ok().filter(|name| name.contains('/')))
}

/// Returns the X targets that a Wayland type stands for.
fn atoms_of(x: &RustConnection, atoms: &Atoms, mime_type: &str) -> Result<Vec<Atom>, XwmError> {
    let mut list = match mime_type {
        "text/plain;charset=utf-8" | "UTF8_STRING" => vec![atoms.UTF8_STRING],
        "text/plain" | "STRING" | "TEXT" => vec![atoms.UTF8_STRING, atoms.STRING, atoms.TEXT],
        _ => Vec::new(),
    };
    if mime_type.contains('/') {
        list.push(x.intern_atom(false, mime_type.as_bytes())?.reply()?.atom);
    }
    Ok(list)
}

/// Hears of the host's selection and of who wants ours.
struct Watch(Rc<Bridge>, Kind);

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
            Some(Rc::new(Offer { object: OfferObject::Clipboard(id.clone()), types }))
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

    fn handle_motion(
        &mut self,
        _slf: &Rc<WlDataDevice>,
        _time: u32,
        _x: Fixed,
        _y: Fixed,
    ) {
    }

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

    fn handle_action(
        &mut self,
        _slf: &Rc<WlDataOffer>,
        _action: WlDataDeviceManagerDndAction,
    ) {
    }
}

impl WlDataSourceHandler for Watch {
    fn handle_send(&mut self, _slf: &Rc<WlDataSource>, mime_type: &str, fd: &Rc<OwnedFd>) {
        self.0.note(Happening::Wanted(self.1, mime_type.to_owned(), fd.clone()));
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
            Some(Rc::new(Offer { object: OfferObject::Primary(id.clone()), types }))
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
        self.0.note(Happening::Wanted(self.1, mime_type.to_owned(), fd.clone()));
    }

    fn handle_cancelled(&mut self, _slf: &Rc<ZwpPrimarySelectionSourceV1>) {
        self.0.note(Happening::Replaced(self.1));
    }
}
