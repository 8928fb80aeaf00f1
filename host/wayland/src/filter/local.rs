//! Copying and dragging inside one VM. A program's own types reach other programs of the same VM, whatever may cross to the
//! host: tabs of a browser and cells of a spreadsheet are dragged under names that the host never lets in.
//!
//! ```text
//!  source in the VM ── its types that may cross, and a mark ──▶ compositor ── offer with the mark ──▶ program in the VM
//!         ◀──────────────── asked for data directly, without the compositor ─────────────────────────┘
//! ```
//! A mark is a type that names the source. It has a random part, is never shown to a guest and is taken from none, so it can
//! be neither guessed nor repeated.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use wayland::channel::{FdRole, Shared};

use super::transfer::MAX_MIME_LEN;

/// The most types of one source or offer. Office programs offer some thirty.
pub(super) const MAX_TYPES: usize = 128;

/// The sources of one VM's programs.
pub struct Locals {
    random: u64,
    next: Cell<u64>,
    sources: RefCell<HashMap<u64, Local>>,
}

type Ask = dyn Fn(&str, &Rc<OwnedFd>) -> bool;

struct Local {
    /// Asks the source for data; returns whether it was there.
    ask: Box<Ask>,
    channel: Shared,
    types: Vec<String>,
}

/// One source among [`Locals`], forgotten when dropped.
pub(super) struct Listed {
    locals: Rc<Locals>,
    number: u64,
    /// Types that were offered, those that do not count too.
    offered: Cell<usize>,
}

impl Default for Locals {
    fn default() -> Self {
        let mut random = [0; 8];
        // The kernel has had its randomness since long before anybody has a desktop.
        let _ = rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty());
        Self {
            random: u64::from_ne_bytes(random),
            next: Cell::new(0),
            sources: RefCell::default(),
        }
    }
}

impl fmt::Debug for Locals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locals").finish_non_exhaustive()
    }
}

impl Locals {
    /// Lists a source of the program behind `channel`, which is asked for data by `ask`.
    pub(super) fn list(
        self: &Rc<Self>,
        channel: Shared,
        ask: impl Fn(&str, &Rc<OwnedFd>) -> bool + 'static,
    ) -> Listed {
        let number = self.next.replace(self.next.get() + 1);
        let local = Local {
            ask: Box::new(ask),
            channel,
            types: Vec::new(),
        };
        self.sources.borrow_mut().insert(number, local);
        Listed {
            locals: self.clone(),
            number,
            offered: Cell::new(0),
        }
    }

    fn mark(&self, number: u64) -> String {
        format!("application/x-testudo-{:016x}-{number:x}", self.random)
    }

    /// Returns the number of the source whose mark `mime` is.
    pub(super) fn marked(&self, mime: &str) -> Option<u64> {
        let (_, number) = mime.rsplit_once('-')?;
        let number = u64::from_str_radix(number, 16).ok()?;
        (self.mark(number) == mime).then_some(number)
    }

    /// Returns the types of a source that is still there.
    pub(super) fn types(&self, number: u64) -> Option<Vec<String>> {
        let sources = self.sources.borrow();
        sources.get(&number).map(|local| local.types.clone())
    }

    /// Asks a source for data of type `mime`, to be written to `fd`.
    pub(super) fn ask(&self, number: u64, mime: &str, fd: &Rc<OwnedFd>) {
        let sources = self.sources.borrow();
        let Some(local) = sources.get(&number) else {
            return;
        };
        if (local.ask)(mime, fd) {
            local.channel.borrow_mut().expect_fd(FdRole::Pipe);
        }
    }
}

impl Listed {
    /// Returns the type by which the source is known when it comes back.
    pub(super) fn mark(&self) -> String {
        self.locals.mark(self.number)
    }

    /// Adds a type that the source offers; returns whether it counts: there are not too many, and it is not too long.
    pub(super) fn add(&self, mime: &str) -> bool {
        let before = self.offered.replace(self.offered.get() + 1);
        if before >= MAX_TYPES || mime.len() > MAX_MIME_LEN {
            return false;
        }
        if let Some(local) = self.locals.sources.borrow_mut().get_mut(&self.number) {
            local.types.push(mime.to_owned());
        }
        true
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.locals.sources.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_marks_are_known() {
        let (locals, others) = (Locals::default(), Locals::default());
        assert_eq!(locals.marked(&locals.mark(31)), Some(31));
        assert_eq!(locals.marked(&others.mark(31)), None);
        for guess in ["text/plain", "application/x-testudo-0-1f", "-", ""] {
            assert_eq!(locals.marked(guess), None, "{guess}");
        }
    }
}
