//! The threads that run virtual processors on the host, and how the rest of the process stops and resumes them.
//!
//! ```text
//!            pause()                    all threads wait
//! Running ───────────► Pausing ───────────────────────────► Paused
//!    ▲                                                        │ resume()
//!    └────────────────────────────────────────────────────────┘
//! any ── a vCPU or the control socket says how the machine ends ──► Ended
//! ```

use std::io;
use std::os::raw::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use kvm_bindings::{KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{VcpuExit, VcpuFd};
use spec::end::EngineEnd;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use crate::board::Board;
use crate::pci::bus::lock;
use crate::power::PowerChange;

/// A signal can come just before its thread enters the guest and be lost, so it is sent until it is heeded.
const KICK_AGAIN: Duration = Duration::from_millis(2);

/// What the threads are to do, and what they have done.
pub(crate) struct Yard {
    state: Mutex<State>,
    changed: Condvar,
    /// The state is not `Running`; read without the lock before each entry.
    stop: AtomicBool,
    /// Written when there is news: the end, or a panic.
    news: EventFd,
}

#[derive(Default)]
struct State {
    pause: bool,
    waiting: usize,
    threads: usize,
    panicked: bool,
    end: Option<EngineEnd>,
}

impl Yard {
    /// `news` is written when the machine ends or panics.
    pub(crate) fn new(news: EventFd) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self {
            state,
            changed,
            stop: AtomicBool::new(false),
            news,
        })
    }

    /// Says how the machine ends; the first to say it is heard.
    pub(crate) fn end(&self, end: EngineEnd) {
        let mut state = lock(&self.state);
        state.end.get_or_insert(end);
        self.stop.store(true, Ordering::Release);
        self.changed.notify_all();
        let _full_counter_is_news_too = self.news.write(1);
    }

    /// Returns how the machine ended, once it has.
    pub(crate) fn ended(&self) -> Option<EngineEnd> {
        lock(&self.state).end
    }

    /// Returns, once, that the guest kernel panicked.
    pub(crate) fn take_panic(&self) -> bool {
        std::mem::take(&mut lock(&self.state).panicked)
    }

    /// Returns whether the processors stand still.
    pub(crate) fn is_paused(&self) -> bool {
        lock(&self.state).pause
    }

    fn panicked(&self) {
        lock(&self.state).panicked = true;
        let _full_counter_is_news_too = self.news.write(1);
    }

    /// Waits while the machine is paused; returns false when it has ended.
    fn may_run(&self) -> bool {
        let mut state = lock(&self.state);
        while state.pause && state.end.is_none() {
            state.waiting += 1;
            self.changed.notify_all();
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.end.is_none()
    }
}

/// All processors of the machine with their threads.
pub(crate) struct Processors {
    yard: Arc<Yard>,
    threads: Vec<JoinHandle<()>>,
    vcpus: Vec<Arc<Mutex<VcpuFd>>>,
}

impl Processors {
    /// Starts a thread for each of `vcpus`.
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn start(
        vcpus: Vec<VcpuFd>,
        board: &Arc<Board>,
        yard: &Arc<Yard>,
    ) -> io::Result<Self> {
        register_signal_handler(SIGRTMIN(), on_kick)?;
        lock(&yard.state).threads = vcpus.len();
        let vcpus: Vec<_> = vcpus
            .into_iter()
            .map(|vcpu| Arc::new(Mutex::new(vcpu)))
            .collect();
        let mut processors = Self {
            yard: Arc::clone(yard),
            threads: Vec::new(),
            vcpus,
        };
        for (number, vcpu) in processors.vcpus.iter().enumerate() {
            let (vcpu, board, yard) = (Arc::clone(vcpu), Arc::clone(board), Arc::clone(yard));
            let thread = Builder::new().name(format!("vcpu{number}"));
            processors
                .threads
                .push(thread.spawn(move || run(&vcpu, &board, &yard))?);
        }
        Ok(processors)
    }

    /// Makes all processors stand still and returns when they do.
    pub(crate) fn pause(&self) {
        let mut state = lock(&self.yard.state);
        state.pause = true;
        self.yard.stop.store(true, Ordering::Release);
        while state.waiting < state.threads && state.end.is_none() {
            self.kick();
            let waited = self.yard.changed.wait_timeout(state, KICK_AGAIN);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Lets the processors go on.
    pub(crate) fn resume(&self) {
        let mut state = lock(&self.yard.state);
        state.pause = false;
        self.yard.stop.store(state.end.is_some(), Ordering::Release);
        self.yard.changed.notify_all();
    }

    /// Returns the processors, which must stand still.
    pub(crate) fn paused(&self) -> &[Arc<Mutex<VcpuFd>>] {
        &self.vcpus
    }

    /// Waits for all threads after the machine has ended.
    pub(crate) fn join(self) {
        for thread in self.threads {
            while !thread.is_finished() {
                let _finished_just_now = thread.kill(SIGRTMIN());
                std::thread::park_timeout(KICK_AGAIN);
            }
            let _a_panic_has_been_printed = thread.join();
        }
    }

    fn kick(&self) {
        for thread in &self.threads {
            let _finished_just_now = thread.kill(SIGRTMIN());
        }
    }
}

/// The signal only has to interrupt; what to do is in the yard.
extern "C" fn on_kick(_: c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Runs one processor until the machine ends.
fn run(vcpu: &Mutex<VcpuFd>, board: &Board, yard: &Yard) {
    loop {
        if !yard.may_run() {
            return;
        }
        let mut vcpu = lock(vcpu);
        while !yard.stop.load(Ordering::Acquire) {
            if let Some(end) = step(&mut vcpu, board, yard) {
                yard.end(end);
                return;
            }
        }
        // What the last exit asked for is only complete after one more entry, which must not run the guest.
        vcpu.set_kvm_immediate_exit(1);
        let _interrupted_as_asked = vcpu.run();
        vcpu.set_kvm_immediate_exit(0);
    }
}

/// Enters the guest once and does what it left for. Returns how the machine ends, if it does.
fn step(vcpu: &mut VcpuFd, board: &Board, yard: &Yard) -> Option<EngineEnd> {
    match vcpu.run() {
        Ok(VcpuExit::MmioRead(address, data)) => board.read_memory(address, data),
        Ok(VcpuExit::MmioWrite(address, data)) => board.write_memory(address, data),
        Ok(VcpuExit::IoIn(port, data)) => board.read_port(port, data),
        Ok(VcpuExit::IoOut(port, data)) => match board.write_port(port, data) {
            PowerChange::Nothing => {}
            PowerChange::Panicked => yard.panicked(),
            PowerChange::End(end) => return Some(end),
        },
        Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => {
            return Some(EngineEnd::PowerOff);
        }
        Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _)) => return Some(EngineEnd::Reset),
        Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_CRASH, _)) => return Some(EngineEnd::Panic),
        Ok(VcpuExit::Shutdown) => return Some(crash(vcpu, "triple fault")),
        Ok(VcpuExit::FailEntry(reason, _)) => {
            tracing::error!(reason, "the processor refused to enter the guest");
            return Some(EngineEnd::Crash);
        }
        Ok(VcpuExit::InternalError) => return Some(crash(vcpu, "KVM cannot go on")),
        Ok(_) => board.count_other(),
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => board.count_other(),
        Err(error) => {
            tracing::error!(%error, "cannot run a vCPU");
            return Some(EngineEnd::Crash);
        }
    }
    None
}

/// Says where the guest was.
fn crash(vcpu: &VcpuFd, what: &str) -> EngineEnd {
    let at = vcpu
        .get_regs()
        .map(|registers| registers.rip)
        .unwrap_or_default();
    tracing::error!(at = format_args!("{at:#x}"), "the guest crashed: {what}");
    EngineEnd::Crash
}
