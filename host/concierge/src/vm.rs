//! Virtual machines on the host: each has one owner, a task with one queue, which alone changes anything. Others
//! ask it. So requests for one VM come one after another, and those for different VMs never wait for each other.
//!
//! ```text
//!                 create, import                    start
//!      ┌────────┐ ─────────────▶ ┌──────────┐     ┌──────────┐ ──────────────▶ ┌──────────┐
//!      │ Absent │                │ DiskBusy │ ──▶ │ Stopped  │                 │ Starting │
//!      └────────┘ ◀───────────── └──────────┘ ◀── └──────────┘ ◀────────────── └──────────┘
//!           │        destroy         resize, export,   ▲  ▲   failed, stop, kill     │
//!           │                        set, destroy      │  │                          │ the guest is
//!           │                                          │  │ kill, a process ended    │ configured
//!           │                                  ended   │  │                          ▼
//!           │                           ┌──────────┐ ──┘  └─────────────────── ┌──────────┐
//!           │                           │ Stopping │ ◀──────────────────────── │ Running  │
//!           │                           │ Saving   │        stop, save         └──────────┘
//!           │                           └──────────┘
//!           │                                                                     ▲  │ resize, set
//!           │                                                                     │  ▼
//!           └── start with `create` goes to Starting at once                  ┌──────────┐
//!                                                                             │ Changing │
//!                                                                             └──────────┘
//! ```
//!
//! The state is nowhere stored: it follows from the work under way, from whether an engine lives, and from
//! whether the disk's folder is there. After `kill -9` of anything, the next look is right.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use link::config::EngineChoice;
use spec::windows::Modes;
use tokio::sync::{mpsc, watch};
use wire::{Bytes, Fault, Kind, Mib, VmName};

use crate::guest::agent::Agent;
use crate::guest::windows::Windows;
use crate::log::Log;
use crate::progress::{Events, Listener};
use crate::world::World;

mod crew;
pub(crate) mod machine;
mod owner;
pub(crate) mod report;
mod save;
mod start;
pub(crate) mod state;
mod stop;
pub(crate) mod work;

use state::{State, Verb};

/// Requests that wait for one VM; a client that asks more is told that the VM is busy.
const QUEUE: usize = 64;

/// Longest time for the guest to end politely when the request does not say.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// What is asked of a VM.
#[derive(Debug)]
pub(crate) enum Request {
    /// Make it.
    Create(Wishes),
    /// Make it from the bytes of an exported file.
    Import(mpsc::Receiver<Vec<u8>>),
    /// Bring it up.
    Start {
        /// Also when it does not exist.
        create: bool,
        /// The engine, if not the configured one.
        engine: Option<EngineChoice>,
        /// Anew, whatever was saved.
        force_boot: bool,
    },
    /// Put it into a file, from which its next start goes on.
    Save,
    /// End it, politely for this long.
    Stop(Duration),
    /// End it at once.
    Kill,
    /// Remove it.
    Destroy {
        /// Also when it runs.
        force: bool,
    },
    /// Grow its disk.
    Resize(Bytes),
    /// Write it out.
    Export(mpsc::Sender<Vec<u8>>),
    /// Change what its next start uses.
    Set(Wishes),
}

/// Sizes that a request may name; the rest stays or takes the default.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wishes {
    /// Virtual processors.
    pub(crate) cpus: Option<u32>,
    /// Memory.
    pub(crate) memory: Option<Mib>,
    /// Disk size.
    pub(crate) disk: Option<Bytes>,
    /// When copied data may cross.
    pub(crate) clipboard: Option<Modes>,
}

impl Request {
    /// Returns what the user calls it.
    fn word(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Import(_) => "import",
            Self::Start { .. } => "start",
            Self::Save => "save",
            Self::Stop(_) => "stop",
            Self::Kill => "kill",
            Self::Destroy { .. } => "destroy",
            Self::Resize(_) => "resize",
            Self::Export(_) => "export",
            Self::Set(_) => "set",
        }
    }

    fn verb(&self) -> Verb {
        match self {
            Self::Create(_) => Verb::Create,
            Self::Import(_) => Verb::Import,
            Self::Start { create, .. } => Verb::Start { create: *create },
            Self::Save => Verb::Save,
            Self::Stop(_) => Verb::Stop,
            Self::Kill => Verb::Kill,
            Self::Destroy { force } => Verb::Destroy { force: *force },
            Self::Resize(_) => Verb::Resize,
            Self::Export(_) => Verb::Export,
            Self::Set(_) => Verb::Set,
        }
    }
}

/// A request with its client.
#[derive(Debug)]
struct Ask {
    request: Request,
    /// The request's id, for the log.
    id: String,
    listener: Listener,
}

/// A VM's two logs.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    /// Lines of concierge and the VM's processes.
    pub(crate) vm: Log,
    /// What the guest's kernel prints.
    pub(crate) console: Log,
}

/// What can be seen of a VM without asking its owner.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// What it is doing.
    pub(crate) state: State,
    /// What runs, if anything does.
    pub(crate) running: Option<Running>,
    /// Why it last ended, when nobody had asked for that.
    pub(crate) last_end: Option<String>,
}

/// What can be seen of a running machine.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    /// The engine's name.
    pub(crate) engine: &'static str,
    /// Why that engine.
    pub(crate) engine_reason: String,
    /// Process ids, the engine's first.
    pub(crate) pids: Vec<u32>,
    /// The context identifier.
    pub(crate) cid: u32,
    /// Seconds since the epoch.
    pub(crate) started_s: u64,
    /// The guest's agent.
    pub(crate) agent: Agent,
    /// Where its windows are shown.
    pub(crate) windows: Windows,
}

/// One VM as others see it.
#[derive(Debug, Clone)]
struct Handle {
    queue: mpsc::Sender<Ask>,
    view: watch::Receiver<View>,
    logs: Logs,
}

type Handles = Arc<Mutex<BTreeMap<VmName, Handle>>>;

/// All VMs.
#[derive(Debug, Clone)]
pub(crate) struct Vms {
    world: Arc<World>,
    handles: Handles,
}

impl Vms {
    /// Returns the VMs whose folders are there, after removing what an earlier daemon left unfinished.
    pub(crate) fn new(world: Arc<World>) -> Self {
        let names = crate::disk::sweep(&world.places.vms());
        let vms = Self {
            world,
            handles: Handles::default(),
        };
        for name in names {
            vms.handle(&name);
        }
        vms
    }

    /// Returns the daemon's surroundings.
    pub(crate) fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Asks VM `name` by the request `id`; the events end when it is done.
    pub(crate) fn ask(&self, name: &VmName, request: Request, id: &str) -> Events {
        let (listener, events) = mpsc::unbounded_channel();
        // Under the lock that an owner takes to leave, so that no request is sent to one that has left.
        let mut handles = lock(&self.handles);
        let handle = self.find(&mut handles, name);
        let ask = Ask {
            request,
            id: id.to_owned(),
            listener,
        };
        if let Err(error) = handle.queue.try_send(ask) {
            let (mpsc::error::TrySendError::Full(ask) | mpsc::error::TrySendError::Closed(ask)) =
                error;
            let fault = Fault::new(
                Kind::Busy,
                "E-VM-QUEUE",
                format!("too many requests wait for {name}"),
            );
            // The client holds the other end.
            let _heard = ask.listener.send(Err(fault.into()));
        }
        events
    }

    /// Asks VM `name` by the request `id` and waits until it is done.
    ///
    /// # Errors
    /// What the VM's owner answers.
    pub(crate) async fn done(
        &self,
        name: &VmName,
        request: Request,
        id: &str,
    ) -> Result<(), Fault> {
        let mut events = self.ask(name, request, id);
        while let Some(event) = events.recv().await {
            event?;
        }
        Ok(())
    }

    /// Returns the names of all VMs that exist or are being made.
    pub(crate) fn names(&self) -> Vec<VmName> {
        let handles = lock(&self.handles);
        let there = handles
            .iter()
            .filter(|(_, handle)| handle.view.borrow().state != State::Absent);
        there.map(|(name, _)| name.clone()).collect()
    }

    /// Returns what can be seen of VM `name`.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn view(&self, name: &VmName) -> Result<View, Fault> {
        let view = lock(&self.handles)
            .get(name)
            .map(|handle| handle.view.borrow().clone());
        view.filter(|view| view.state != State::Absent)
            .ok_or_else(|| crate::disk::not_found(name))
    }

    /// Returns the logs of VM `name`.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn logs(&self, name: &VmName) -> Result<Logs, Fault> {
        self.view(name)?;
        Ok(self.handle(name).logs)
    }

    /// Returns the machine of VM `name` once it runs.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn running(&self, name: &VmName) -> Result<Running, Fault> {
        let view = self.view(name)?;
        let usable = matches!(view.state, State::Running | State::Changing);
        view.running.filter(|_| usable).ok_or_else(|| {
            let fault = Fault::new(Kind::Busy, "E-VM-STOPPED", format!("{name} is not running"))
                .hint(format!("start it: vmc start {name}"));
            match view.last_end {
                Some(why) => fault.cause(why),
                None => fault,
            }
        })
    }

    /// Returns whether any VM does anything.
    pub(crate) fn active(&self) -> bool {
        let handles = lock(&self.handles);
        handles
            .values()
            .any(|handle| !matches!(handle.view.borrow().state, State::Absent | State::Stopped))
    }

    fn handle(&self, name: &VmName) -> Handle {
        self.find(&mut lock(&self.handles), name).clone()
    }

    fn find<'a>(
        &self,
        handles: &'a mut MutexGuard<'_, BTreeMap<VmName, Handle>>,
        name: &VmName,
    ) -> &'a Handle {
        handles.entry(name.clone()).or_insert_with(|| {
            owner::start(
                Arc::clone(&self.world),
                name.clone(),
                Arc::clone(&self.handles),
            )
        })
    }
}

fn lock(handles: &Handles) -> MutexGuard<'_, BTreeMap<VmName, Handle>> {
    handles.lock().unwrap_or_else(PoisonError::into_inner)
}
