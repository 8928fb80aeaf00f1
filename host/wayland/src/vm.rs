//! What all connections of one VM share on the host: its rules, and what it holds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wayland::pool::Budget;

use crate::ask::Asks;
use crate::filter::Locals;
use spec::windows::{Direction, Mode, Modes, Policy};

/// How recent the VM's last input must be for a window to ask for the focus: the time a program
/// takes to start on a slow machine, as in kwin's focus stealing prevention.
const FRESH_INPUT: Duration = Duration::from_secs(10);

/// Something of which a VM may only have so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// A connected program.
    Client,
    /// A surface.
    Surface,
    /// A window.
    Window,
}

/// One VM.
#[derive(Debug)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub policy: Policy,
    /// Its shared memory.
    pub budget: Arc<Budget>,
    /// Open questions to the user.
    pub asks: RefCell<Asks>,
    /// What its programs copy and drag among themselves.
    pub locals: Rc<Locals>,
    counts: [Cell<u32>; 3],
    last_input: Cell<Option<Instant>>,
    modes: Cell<Modes>,
}

/// One of the things a VM may have, given back when dropped.
#[derive(Debug)]
pub struct Held {
    vm: Rc<Vm>,
    what: Counted,
}

impl Vm {
    /// Returns a VM that holds nothing yet.
    #[must_use]
    pub fn new(name: String, policy: Policy, asks: Asks) -> Rc<Self> {
        let budget = Budget::new(policy.limits.pool_bytes);
        let asks = RefCell::new(asks);
        let modes = Cell::new(policy.clipboard.modes);
        Rc::new(Self {
            name,
            policy,
            budget,
            asks,
            locals: Rc::default(),
            counts: Default::default(),
            last_input: Cell::new(None),
            modes,
        })
    }

    /// Takes one of `what`, if the VM may have one more.
    #[must_use]
    pub fn hold(self: &Rc<Self>, what: Counted) -> Option<Held> {
        let limits = &self.policy.limits;
        let limit = match what {
            Counted::Client => limits.clients,
            Counted::Surface => limits.surfaces,
            Counted::Window => limits.windows,
        };
        let count = &self.counts[what as usize];
        if count.get() >= limit {
            return None;
        }
        count.set(count.get() + 1);
        Some(Held {
            vm: self.clone(),
            what,
        })
    }

    /// Notes that the user has just used a window of this VM.
    pub fn note_input(&self) {
        self.last_input.set(Some(Instant::now()));
    }

    /// Returns whether the user has used a window of this VM a moment ago.
    #[must_use]
    pub fn has_fresh_input(&self) -> bool {
        self.last_input
            .get()
            .is_some_and(|at| at.elapsed() < FRESH_INPUT)
    }

    /// Returns the rule for copying in `direction`.
    #[must_use]
    pub fn mode(&self, direction: Direction) -> Mode {
        match direction {
            Direction::ToGuest => self.modes.get().to_guest,
            Direction::ToHost => self.modes.get().to_host,
        }
    }

    /// Changes the rules for copying from now on.
    pub fn set_modes(&self, modes: Modes) {
        self.modes.set(modes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let count = &self.vm.counts[self.what as usize];
        count.set(count.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_counts_what_is_held_and_forgets_what_is_gone() {
        let mut policy = Policy::default();
        policy.limits.windows = 2;
        let vm = Vm::new("vm".into(), policy, Asks::nobody());
        let first = vm.hold(Counted::Window).unwrap();
        let _second = vm.hold(Counted::Window).unwrap();
        assert!(vm.hold(Counted::Window).is_none());
        assert!(vm.hold(Counted::Surface).is_some());
        drop(first);
        assert!(vm.hold(Counted::Window).is_some());
    }

    #[test]
    fn input_is_fresh_only_after_there_was_some() {
        let vm = Vm::new("vm".into(), Policy::default(), Asks::nobody());
        assert!(!vm.has_fresh_input());
        vm.note_input();
        assert!(vm.has_fresh_input());
    }
}
