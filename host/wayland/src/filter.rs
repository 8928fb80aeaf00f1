//! The filter between a guest's program and the host's compositor: what passes, and in what shape.

mod globals;
mod input;
mod local;
mod marking;
mod memory;
mod primary;
mod registry;
mod selection;
mod text_input;
mod transfer;
mod windows;

use std::cell::Cell;
use std::rc::Rc;

use wayland::channel::Shared;
use wl_proxy::object::Object;
use wl_proxy::protocols::wayland::wl_display::{WlDisplay, WlDisplayError};

use crate::vm::Vm;

pub use local::Locals;
pub use registry::DisplayHandler;
pub use transfer::audit_end;

/// What the handlers of one connection share.
#[derive(Clone)]
pub struct Context {
    /// The VM the program runs in.
    pub vm: Rc<Vm>,
    /// The way to the guest.
    pub channel: Shared,
    display: Rc<WlDisplay>,
    refused: Rc<Cell<Option<&'static str>>>,
}

impl Context {
    /// Returns the context of the connection whose client has `display`.
    #[must_use]
    pub fn new(vm: Rc<Vm>, channel: Shared, display: Rc<WlDisplay>) -> Self {
        Self {
            vm,
            channel,
            display,
            refused: Rc::default(),
        }
    }

    /// Ends the connection: the program gets a protocol error on `object` that says why.
    pub fn refuse(&self, object: Rc<dyn Object>, why: &'static str) {
        if self.refused.get().is_none() {
            tracing::warn!(vm = self.vm.name, why, "a program is refused");
            self.display
                .send_error(object, WlDisplayError::IMPLEMENTATION.0, why);
            self.refused.set(Some(why));
        }
    }

    /// Returns why the connection is to end, if it is.
    #[must_use]
    pub fn refused(&self) -> Option<&'static str> {
        self.refused.get()
    }
}
