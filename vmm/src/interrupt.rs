//! Interrupts as messages: one [`Line`] is an event descriptor on the host that ends as one MSI in the guest.
//!
//! A line's descriptor is handed to whoever raises the interrupt, mostly a device daemon, and registered in
//! KVM as an irqfd: no thread of this process wakes up for it. While the guest has the line masked, the
//! irqfd is taken away; the descriptor then counts, and KVM delivers what it counted when it comes back.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi, kvm_irq_routing_msi__bindgen_ty_1,
};
use kvm_ioctls::VmFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::event::descriptor;

/// The number of lines a machine can have: 32 PCI devices with 17 vectors and the I/O APIC's pins fit, and
/// KVM's own limit (`KVM_MAX_IRQ_ROUTES`) is 4,096.
const MAX_LINES: u32 = 1024;

/// What an interrupt writes where (PCI 3.0 §6.8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Which local APIC, and how.
    pub(crate) address: u64,
    /// Which vector, and how.
    pub(crate) data: u32,
}

/// Joins event descriptors to messages: KVM, or a recorder in tests.
pub(crate) trait Switchboard: Send + Sync {
    /// Makes `event` deliver `message` as line `number` from now on, with what it has counted so far.
    fn connect(&self, number: u32, event: &EventFd, message: Message) -> io::Result<()>;
    /// Takes `event` off the line.
    fn disconnect(&self, number: u32, event: &EventFd) -> io::Result<()>;
}

/// One interrupt.
pub(crate) struct Line {
    number: u32,
    event: EventFd,
    connected: Option<Message>,
    board: Arc<dyn Switchboard>,
}

impl Line {
    /// Makes a line that is masked.
    pub(crate) fn new(number: u32, board: Arc<dyn Switchboard>) -> io::Result<Self> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Self {
            number,
            event,
            connected: None,
            board,
        })
    }

    /// Returns what raises the interrupt when written.
    pub(crate) fn event(&self) -> &EventFd {
        &self.event
    }

    /// Lets the interrupt through as `message`, or holds it back.
    ///
    /// Nothing is asked of KVM when nothing changes: changing routes is the dearest thing a guest does while it
    /// sets up its devices.
    pub(crate) fn set(&mut self, message: Option<Message>) {
        if self.connected == message {
            return;
        }
        let mut result = Ok(());
        if self.connected.is_some() {
            result = self.board.disconnect(self.number, &self.event);
        }
        if let Some(message) = message {
            result = result.and(self.board.connect(self.number, &self.event, message));
        }
        if let Err(error) = result {
            tracing::error!(line = self.number, %error, "cannot route an interrupt");
        }
        self.connected = message;
    }

    /// Returns whether the interrupt was raised while it was held back.
    pub(crate) fn is_pending(&self) -> bool {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut polled = [PollFd::from_borrowed_fd(
            descriptor(&self.event),
            PollFlags::IN,
        )];
        self.connected.is_none() && matches!(poll(&mut polled, Some(&now)), Ok(1))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.set(None);
    }
}

/// KVM's routing table.
pub(crate) struct KvmSwitchboard {
    vm: Arc<VmFd>,
    routes: Mutex<Vec<Option<Message>>>,
}

impl KvmSwitchboard {
    /// Starts with no routes.
    pub(crate) fn new(vm: Arc<VmFd>) -> Self {
        Self {
            vm,
            routes: Mutex::default(),
        }
    }

    fn set_route(&self, number: u32, message: Message) -> io::Result<()> {
        let index = usize::try_from(number).expect("32 bits fit");
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.len() <= index {
            routes.resize(index + 1, None);
        }
        if routes[index] == Some(message) {
            return Ok(());
        }
        routes[index] = Some(message);
        let entries: Vec<_> = (0..)
            .zip(routes.iter())
            .filter_map(|(gsi, route)| route.map(|message| route_entry(gsi, message)))
            .collect();
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.vm.set_gsi_routing(&table).map_err(io::Error::from)
    }
}

impl Switchboard for KvmSwitchboard {
    fn connect(&self, number: u32, event: &EventFd, message: Message) -> io::Result<()> {
        self.set_route(number, message)?;
        self.vm
            .register_irqfd(event, number)
            .map_err(io::Error::from)
    }

    fn disconnect(&self, number: u32, event: &EventFd) -> io::Result<()> {
        self.vm
            .unregister_irqfd(event, number)
            .map_err(io::Error::from)
    }
}

/// Gives out line numbers, each once, and takes them back when a device is unplugged.
pub(crate) struct Lines {
    board: Arc<dyn Switchboard>,
    taken: Mutex<Vec<bool>>,
}

impl Lines {
    /// All numbers are free.
    pub(crate) fn new(board: Arc<dyn Switchboard>) -> Self {
        Self {
            board,
            taken: Mutex::default(),
        }
    }

    /// Makes `count` masked lines.
    ///
    /// # Errors
    /// The numbers or the process's descriptors are used up.
    pub(crate) fn make(&self, count: usize) -> io::Result<Vec<Line>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (0..count)
            .map(|_| {
                let free = (0..MAX_LINES).find(|number| !is_taken(&taken, *number));
                let number = free.ok_or_else(|| io::Error::other("all interrupts are in use"))?;
                let index = usize::try_from(number).expect("32 bits fit");
                if taken.len() <= index {
                    taken.resize(index + 1, false);
                }
                taken[index] = true;
                Line::new(number, Arc::clone(&self.board))
            })
            .collect()
    }

    /// Takes back what [`Lines::make`] made.
    pub(crate) fn free(&self, lines: Vec<Line>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines {
            let index = usize::try_from(line.number).expect("32 bits fit");
            if let Some(slot) = taken.get_mut(index) {
                *slot = false;
            }
        }
    }
}

fn is_taken(taken: &[bool], number: u32) -> bool {
    usize::try_from(number)
        .ok()
        .and_then(|index| taken.get(index))
        .copied()
        .unwrap_or(false)
}

fn route_entry(gsi: u32, message: Message) -> kvm_irq_routing_entry {
    let low = u32::try_from(message.address & 0xffff_ffff).expect("masked to 32 bits");
    let high = u32::try_from(message.address >> 32).expect("shifted to 32 bits");
    let msi = kvm_irq_routing_msi {
        address_lo: low,
        address_hi: high,
        data: message.data,
        __bindgen_anon_1: kvm_irq_routing_msi__bindgen_ty_1 { pad: 0 },
    };
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
        ..Default::default()
    }
}

/// A switchboard that remembers, for the tests of what raises interrupts.
#[cfg(any(test, fuzzing))]
pub(crate) mod recorder {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::{Arc, Mutex};

    use vmm_sys_util::eventfd::EventFd;

    use super::{Lines, Message, Switchboard};

    /// What is connected now, and how often anything was.
    #[derive(Default)]
    pub(crate) struct Recorder {
        pub(crate) connected: Mutex<BTreeMap<u32, Message>>,
        pub(crate) changes: Mutex<u32>,
    }

    impl Recorder {
        pub(crate) fn with_lines() -> (Arc<Self>, Arc<Lines>) {
            let recorder = Arc::new(Self::default());
            let lines = Lines::new(Arc::clone(&recorder) as Arc<dyn Switchboard>);
            (recorder, Arc::new(lines))
        }
    }

    impl Switchboard for Recorder {
        fn connect(&self, number: u32, _event: &EventFd, message: Message) -> io::Result<()> {
            *self.changes.lock().expect("no test goes on after a panic") += 1;
            assert_eq!(
                self.connected
                    .lock()
                    .expect("no test goes on after a panic")
                    .insert(number, message),
                None
            );
            Ok(())
        }

        fn disconnect(&self, number: u32, _event: &EventFd) -> io::Result<()> {
            assert!(
                self.connected
                    .lock()
                    .expect("no test goes on after a panic")
                    .remove(&number)
                    .is_some()
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::recorder::Recorder;
    use super::*;

    const HERE: Message = Message {
        address: 0xfee0_0000,
        data: 0x31,
    };

    #[test]
    fn an_unchanged_line_asks_nothing_of_kvm() {
        let (recorder, lines) = Recorder::with_lines();
        let mut line = lines.make(1).unwrap().remove(0);
        line.set(Some(HERE));
        line.set(Some(HERE));
        assert_eq!(*recorder.changes.lock().unwrap(), 1);
    }

    #[test]
    fn a_masked_line_remembers() {
        let (_recorder, lines) = Recorder::with_lines();
        let line = lines.make(1).unwrap().remove(0);
        assert!(!line.is_pending());
        line.event().write(1).unwrap();
        assert!(line.is_pending());
    }

    #[test]
    fn a_dropped_line_leaves_nothing_behind() {
        let (recorder, lines) = Recorder::with_lines();
        let mut made = lines.make(2).unwrap();
        made[1].set(Some(HERE));
        lines.free(made);
        assert!(recorder.connected.lock().unwrap().is_empty());
        assert_eq!(lines.make(1).unwrap()[0].number, 0);
    }

    #[test]
    fn lines_end_before_kvm_does() {
        let (_recorder, lines) = Recorder::with_lines();
        let error = lines.make(2000).err().unwrap();
        assert!(
            matches!(error.raw_os_error(), None | Some(libc::EMFILE)),
            "{error}"
        );
    }
}
