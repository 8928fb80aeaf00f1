//! CLIPBOARD and PRIMARY between X programs and the host, in the container.
//!
//! ```text
//!  X program owns it ─▶ XFixes tells ─▶ TARGETS asked ─▶ a Wayland source with the same types
//!  host owns it ─▶ a Wayland offer ─▶ our window owns the X selection until the offer is gone
//! ```
//! No loop: what our window owns is never offered to Wayland, and our own offers carry a type that
//! nobody else has, so that they are known when they come back.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::event::PollFd;
use wayland::channel::Shared;
use wl_proxy::protocols::wayland::wl_data_device::WlDataDevice;
use wl_proxy::protocols::wayland::wl_data_source::WlDataSource;
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_device_v1::ZwpPrimarySelectionDeviceV1;
use wl_proxy::protocols::wp_primary_selection_unstable_v1::zwp_primary_selection_source_v1::ZwpPrimarySelectionSourceV1;
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
use super::bridge::{Bridge, WindowId};
use super::incoming::Incoming;
use super::offers::{Offer, Watch};
use super::outgoing::Outgoing;
use super::own::Own;
use super::setup::hidden_window;
use super::types::{MAX_TYPES, atoms_of, mime_of, types_of};

/// The most transfers at once in one direction; beyond it X programs get a refusal.
const MAX_TRANSFERS: usize = 64;

/// Which selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What was copied.
    Clipboard,
    /// What is selected.
    Primary,
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
pub(crate) struct Selections {
    x: Rc<RustConnection>,
    atoms: Rc<Atoms>,
    channel: Shared,
    bridge: Rc<Bridge>,
    root: WindowId,
    /// The type by which our own offers are known.
    mark: String,
    sides: [Side; 2],
    incoming: Vec<Incoming>,
    outgoing: Vec<Outgoing>,
}

impl Selections {
    /// Starts to watch both selections of the server.
    ///
    /// # Errors
    /// When the X server is gone.
    pub(crate) fn new(
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
            Ok(Side {
                kind,
                atom,
                window,
                device,
                offer,
                source,
                targets,
            })
        };
        let sides = [
            side(Kind::Clipboard, atoms.CLIPBOARD)?,
            side(Kind::Primary, atoms.PRIMARY)?,
        ];
        let (incoming, outgoing) = (Vec::new(), Vec::new());
        let mark = own_mark();
        Ok(Self {
            x,
            atoms,
            channel,
            bridge,
            root,
            mark,
            sides,
            incoming,
            outgoing,
        })
    }

    /// Gets the devices as soon as the host has announced what they need, and publishes what X
    /// programs have copied.
    pub(crate) fn connect(&mut self, own: &Own) {
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
                side.publish(own, &self.bridge, &self.mark);
            }
        }
    }

    /// Adds what transfers wait for to `fds`.
    pub(crate) fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        self.incoming
            .iter()
            .for_each(|transfer| transfer.interest(fds));
        self.outgoing
            .iter()
            .for_each(|transfer| transfer.interest(fds));
    }

    /// Moves what can be moved.
    ///
    /// # Errors
    /// When the X server is gone.
    pub(crate) fn service(&mut self) -> Result<(), XwmError> {
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
    pub(crate) fn handle_event(&mut self, event: &Event) -> Result<bool, XwmError> {
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
        let Some(side) = self.side(event.selection) else {
            return Ok(());
        };
        if event.owner == side.window {
            return Ok(());
        }
        side.targets.clear();
        side.offer = None;
        if event.owner == NONE {
            side.withdraw();
        } else {
            let (window, atom) = (side.window, side.atom);
            x.convert_selection(
                window,
                atom,
                atoms.TARGETS,
                atoms.SOMMELIER_DATA,
                CURRENT_TIME,
            )?;
        }
        Ok(())
    }

    /// Handles the list of types, or the data of a transfer, that an X program has delivered.
    fn converted(&mut self, event: &ConvertedEvent) -> Result<(), XwmError> {
        for transfer in &mut self.outgoing {
            transfer.converted(&self.x, &self.atoms, event)?;
        }
        let (x, atoms) = (self.x.clone(), self.atoms.clone());
        let Some(side) = self.side(event.selection) else {
            return Ok(());
        };
        if event.requestor != side.window || event.target != atoms.TARGETS {
            return Ok(());
        }
        let types = if event.property == NONE {
            // Programs of the old days do not know TARGETS, and have text.
            vec![atoms.STRING]
        } else {
            let words = u32::try_from(MAX_TYPES).expect("a small number");
            let property = atoms.SOMMELIER_DATA;
            let list = x
                .get_property(true, side.window, property, AtomEnum::ANY, 0, words)?
                .reply();
            list.ok()
                .and_then(|list| Some(list.value32()?.collect()))
                .unwrap_or_default()
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
        let property = if event.property == NONE {
            event.target
        } else {
            event.property
        };
        let full = self.incoming.len() >= MAX_TRANSFERS;
        let channel = self.channel.clone();
        let Some(side) = self.side(event.selection) else {
            return Ok(());
        };
        let Some(offer) = side.offer.clone() else {
            return answer(&x, event, NONE);
        };
        if event.target == atoms.TARGETS {
            let mut list = vec![atoms.TARGETS, atoms.TIMESTAMP];
            for mime_type in &offer.types {
                list.extend(atoms_of(&x, &atoms, mime_type)?);
            }
            list.dedup();
            x.change_property32(
                PropMode::REPLACE,
                event.requestor,
                property,
                AtomEnum::ATOM,
                &list,
            )?;
            return answer(&x, event, property);
        }
        let mime_type = mime_of(&x, &atoms, event.target)?;
        let known = mime_type.and_then(|wanted| offer.best_type(&wanted));
        let Some(mime_type) = known.filter(|_| !full) else {
            return answer(&x, event, NONE);
        };
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
    pub(crate) fn offered(&mut self, kind: Kind, offer: Option<Rc<Offer>>) -> Result<(), XwmError> {
        let x = self.x.clone();
        let side = &mut self.sides[kind as usize];
        if offer
            .as_ref()
            .is_some_and(|offer| offer.types.contains(&self.mark))
        {
            return Ok(());
        }
        // Ours was replaced, or never accepted: compositors refuse selections without recent input.
        side.withdraw();
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
    pub(crate) fn wanted(
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
        let Ok(fd) = fd.as_fd().try_clone_to_owned() else {
            return Ok(());
        };
        let window = hidden_window(&self.x, self.root)?;
        let data = self.atoms.SOMMELIER_DATA;
        self.x
            .convert_selection(window, side.atom, *target, data, CURRENT_TIME)?;
        self.outgoing.push(Outgoing::new(window, data, fd));
        Ok(())
    }

    /// Handles the end of our selection on the Wayland side.
    pub(crate) fn replaced(&mut self, kind: Kind) {
        let side = &mut self.sides[kind as usize];
        side.targets.clear();
        side.withdraw();
    }
}

impl Side {
    /// Makes the X selection the Wayland one.
    fn publish(&mut self, own: &Own, bridge: &Rc<Bridge>, mark: &str) {
        let watch = Watch(bridge.clone(), self.kind);
        let types = self
            .targets
            .iter()
            .map(|(mime_type, _)| &mime_type[..])
            .chain([mark]);
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

/// Returns a type that no other session has.
fn own_mark() -> String {
    let mut random = [0; 8];
    // Without randomness yet, the process's number still tells sessions of one container apart.
    let _ = rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::NONBLOCK);
    format!(
        "text/x-sommelier-{:x}-{:x}",
        std::process::id(),
        u64::from_ne_bytes(random)
    )
}

/// Tells an X program that its data is in `property`, or that there is none.
pub(crate) fn answer(
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
