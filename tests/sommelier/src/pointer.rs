//! A mouse for a screen without devices (wlr-virtual-pointer). As long as it is there the seat has a pointer, which programs
//! need to be told of before they listen to one.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::path::Path;
use std::rc::Rc;

use wayland::stream::clock_ns;
use wl_proxy::protocols::ObjectInterface;
use wl_proxy::protocols::wayland::wl_pointer::WlPointerButtonState;
use wl_proxy::protocols::wayland::wl_registry::{WlRegistry, WlRegistryHandler};
use wl_proxy::protocols::wlr_virtual_pointer_unstable_v1::zwlr_virtual_pointer_manager_v1::ZwlrVirtualPointerManagerV1;
use wl_proxy::protocols::wlr_virtual_pointer_unstable_v1::zwlr_virtual_pointer_v1::ZwlrVirtualPointerV1;

use crate::probe::{Probe, bind};

/// A button, as the kernel numbers them (linux/input-event-codes.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Button {
    /// The one that points and drags.
    Left = 0x110,
    /// The one that opens menus.
    Right = 0x111,
    /// The one that pastes.
    Middle = 0x112,
}

/// A mouse on a screen of `extent`.
pub(crate) struct Pointer {
    probe: Probe,
    object: Rc<ZwlrVirtualPointerV1>,
    extent: (u32, u32),
    time: Cell<u32>,
}

impl Pointer {
    /// Connects a mouse to the compositor at `path`.
    ///
    /// # Errors
    /// When it takes none.
    pub(crate) fn connect(path: &Path, extent: (u32, u32)) -> io::Result<Self> {
        let probe = Probe::connect(path)?;
        let found = Rc::new(RefCell::new(None));
        probe.look(Finder(found.clone()))?;
        let manager = found
            .take()
            .ok_or_else(|| io::Error::other("no virtual pointers"))?;
        let object = manager.new_send_create_virtual_pointer(None);
        let pointer = Self {
            probe,
            object,
            extent,
            time: Cell::new(0),
        };
        pointer.settle()?;
        Ok(pointer)
    }

    /// Puts the mouse there.
    ///
    /// # Errors
    /// When the compositor is gone.
    pub(crate) fn move_to(&self, (x, y): (u32, u32)) -> io::Result<()> {
        let (width, height) = self.extent;
        self.object
            .send_motion_absolute(self.now(), x, y, width, height);
        self.object.send_frame();
        self.settle()
    }

    /// Presses a button or lets it go.
    ///
    /// # Errors
    /// When the compositor is gone.
    pub(crate) fn press(&self, button: Button, down: bool) -> io::Result<()> {
        let state = if down {
            WlPointerButtonState::PRESSED
        } else {
            WlPointerButtonState::RELEASED
        };
        self.object.send_button(self.now(), button as u32, state);
        self.object.send_frame();
        self.settle()
    }

    fn settle(&self) -> io::Result<()> {
        self.probe.round_trips(1).map(drop)
    }

    /// Returns a time in milliseconds that never stands still: two presses at the same time are one.
    fn now(&self) -> u32 {
        let clock = u32::try_from(clock_ns() / 1_000_000 % u64::from(u32::MAX)).unwrap_or(0);
        self.time.set(clock.max(self.time.get() + 1));
        self.time.get()
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pointer")
            .field("extent", &self.extent)
            .finish_non_exhaustive()
    }
}

struct Finder(Rc<RefCell<Option<Rc<ZwlrVirtualPointerManagerV1>>>>);

impl WlRegistryHandler for Finder {
    fn handle_global(
        &mut self,
        slf: &Rc<WlRegistry>,
        name: u32,
        interface: ObjectInterface,
        _version: u32,
    ) {
        if interface == ObjectInterface::ZwlrVirtualPointerManagerV1 {
            *self.0.borrow_mut() = Some(bind(slf, name, 1));
        }
    }
}
