//! The owner of one VM, on the host: takes requests off its queue, has the work done, and watches the machine.
//!
//! See ADR 16. At most one piece of work is under way. It runs inside this task, beside the queue and the watch over the
//! machine's processes, so that a VM that is being started can still be killed.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire::{Fault, Kind, VmName};

use super::crew::Lost;
use super::machine::{Machine, News};
use super::start::{self, Start};
use super::state::{Reaction, Refusal, State};
use super::{Ask, Handle, Handles, Logs, QUEUE, Request, Running, View, lock, save, stop, work};
use crate::disk;
use crate::log::Log;
use crate::progress::{Audience, Listener};
use crate::world::World;

/// What work leaves behind.
enum Outcome {
    /// A machine, or why there is none.
    Started(Box<Result<Machine, Fault>>),
    /// A machine that was to be saved and was not.
    Kept(Box<Machine>, Fault),
    /// Nothing that has to be kept.
    Done(Result<(), Fault>),
}

/// Work under way.
struct Work {
    state: State,
    audience: Audience,
    cancel: CancellationToken,
    future: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

struct Owner {
    name: VmName,
    world: Arc<World>,
    logs: Logs,
    handles: Handles,
    queue: mpsc::Receiver<Ask>,
    view: watch::Sender<View>,
    machine: Option<Machine>,
    started_s: u64,
    last_end: Option<String>,
    work: Option<Work>,
    waiting: VecDeque<Ask>,
}

/// Starts the owner of VM `name`, which leaves `handles` by itself when there is no such VM any more.
pub(super) fn start(world: Arc<World>, name: VmName, handles: Handles) -> Handle {
    let (sender, queue) = mpsc::channel(QUEUE);
    let folder = world.places.vm_logs(&name);
    let logs = Logs {
        vm: Log::open(folder.join("vm.log")),
        console: Log::open(folder.join("console.log")),
    };
    let (view, seen) = watch::channel(View {
        state: State::settled(false, world.folder(&name).exists()),
        running: None,
        last_end: None,
    });
    let owner = Owner {
        name,
        world,
        logs: logs.clone(),
        handles,
        queue,
        view,
        machine: None,
        started_s: 0,
        last_end: None,
        work: None,
        waiting: VecDeque::new(),
    };
    tokio::spawn(owner.run());
    Handle {
        queue: sender,
        view: seen,
        logs,
    }
}

/// What happened next.
enum Happened {
    Asked(Ask),
    Finished(Outcome),
    Lost(Lost),
    /// By the agent, which had been restarted.
    Announced,
    /// A daemon was, by the machine itself.
    Replaced,
}

impl Owner {
    async fn run(mut self) {
        while let Some(happened) = self.next().await {
            match happened {
                Happened::Asked(ask) => self.take(ask).await,
                Happened::Finished(outcome) => self.finish(outcome).await,
                Happened::Lost(lost) => self.lost(lost).await,
                Happened::Announced => self.agent_is_back(),
                Happened::Replaced => {}
            }
            self.show();
            if self.leave() {
                return;
            }
        }
    }

    async fn next(&mut self) -> Option<Happened> {
        let work = async {
            match &mut self.work {
                Some(work) => work.future.as_mut().await,
                None => pending().await,
            }
        };
        let machine = async {
            match &mut self.machine {
                Some(machine) => watch_over(machine).await,
                None => pending().await,
            }
        };
        tokio::select! {
            ask = self.queue.recv() => ask.map(Happened::Asked),
            outcome = work => Some(Happened::Finished(outcome)),
            happened = machine => Some(happened),
        }
    }

    fn state(&self) -> State {
        match &self.work {
            Some(work) => work.state,
            None => State::settled(
                self.machine.is_some(),
                self.world.folder(&self.name).exists(),
            ),
        }
    }

    async fn take(&mut self, ask: Ask) {
        match self.state().react(ask.request.verb()) {
            Reaction::Begin(state) => self.begin(state, ask),
            Reaction::Join => {
                self.note("joins", &ask);
                let work = self.work.as_ref().expect("only work under way is joined");
                work.audience.join(ask.listener);
            }
            // Dropping the listener is the good end.
            Reaction::Nothing => drop(ask),
            Reaction::Later => self.waiting.push_back(ask),
            Reaction::Abort => self.abort(ask).await,
            Reaction::Refuse(refusal) => refuse(&ask.listener, self.refusal(refusal)),
        }
    }

    /// Leaves a line in the VM's log from which a request's story can be found.
    fn note(&self, act: &str, ask: &Ask) {
        let (verb, id) = (ask.request.word(), &ask.id);
        self.logs
            .vm
            .line(&format!("concierge: {act} {verb} request={id}"));
    }

    fn begin(&mut self, state: State, ask: Ask) {
        self.note("begins", &ask);
        let audience = Audience::default();
        audience.join(ask.listener);
        let cancel = CancellationToken::new();
        let future = self.work_for(ask.request, &audience, &cancel);
        self.work = Some(Work {
            state,
            audience,
            cancel,
            future,
        });
    }

    fn work_for(
        &mut self,
        request: Request,
        audience: &Audience,
        cancel: &CancellationToken,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let order = work::Order {
            world: Arc::clone(&self.world),
            name: self.name.clone(),
            audience: audience.clone(),
            cancel: cancel.clone(),
        };
        match request {
            Request::Start {
                engine, force_boot, ..
            } => {
                let start = Start {
                    order,
                    engine,
                    force_boot,
                    logs: self.logs.clone(),
                };
                Box::pin(async { Outcome::Started(Box::new(start.run().await)) })
            }
            Request::Stop(patience) => {
                let machine = self.machine.take();
                let log = self.logs.vm.clone();
                Box::pin(async move {
                    if let Some(machine) = machine {
                        stop::run(machine, patience, &order, &log).await;
                    }
                    Outcome::Done(Ok(()))
                })
            }
            Request::Save => {
                let machine = self.machine.take();
                let log = self.logs.vm.clone();
                Box::pin(async move {
                    let Some(machine) = machine else {
                        return Outcome::Done(Ok(()));
                    };
                    match save::run(machine, &order, &log).await {
                        Ok(()) => Outcome::Done(Ok(())),
                        // Killed meanwhile: it is not to go on.
                        Err((machine, fault)) if order.cancel.is_cancelled() => {
                            machine.kill().await;
                            Outcome::Done(Err(fault))
                        }
                        Err((machine, fault)) => Outcome::Kept(machine, fault),
                    }
                })
            }
            // Where something runs, these two abort it and come back when nothing does.
            Request::Kill => Box::pin(async { Outcome::Done(Ok(())) }),
            Request::Destroy { .. } => done(order.destroy()),
            Request::Create(wishes) => done(order.create(wishes)),
            Request::Import(bytes) => done(order.import(bytes)),
            Request::Resize(size) => {
                let agent = self.machine.as_ref().map(|machine| machine.agent.clone());
                let disk = self.machine.as_ref().map(Machine::data_disk);
                done(order.resize(size, agent, disk))
            }
            Request::Export(bytes) => done(order.export(bytes)),
            Request::Set(wishes) => {
                let windows = self.machine.as_ref().map(|machine| machine.windows.clone());
                done(order.set(wishes, windows))
            }
        }
    }

    /// Ends the machine and the work at once; `ask` is looked at when that is done.
    async fn abort(&mut self, ask: Ask) {
        if let Some(machine) = self.machine.take() {
            self.logs.vm.line("concierge: killing");
            machine.kill().await;
        }
        match &self.work {
            Some(work) => {
                work.cancel.cancel();
                self.waiting.push_front(ask);
            }
            None => Box::pin(self.take(ask)).await,
        }
    }

    async fn finish(&mut self, outcome: Outcome) {
        let work = self.work.take().expect("work has finished");
        let result = match outcome {
            Outcome::Started(started) => started.map(|machine| {
                self.started_s = disk::now_s();
                self.last_end = None;
                self.machine = Some(machine);
            }),
            Outcome::Kept(machine, fault) => {
                self.machine = Some(*machine);
                Err(fault)
            }
            Outcome::Done(result) => result,
        };
        // What others see is right before anybody hears of it.
        self.show();
        work.audience.finish(result);
        for ask in std::mem::take(&mut self.waiting) {
            self.take(ask).await;
        }
    }

    /// A process ended by itself: the guest powered off, or something broke.
    async fn lost(&mut self, lost: Lost) {
        let Some(machine) = self.machine.take() else {
            return;
        };
        self.logs
            .vm
            .line(&format!("concierge: stopped: {}", lost.how));
        self.last_end = Some(if lost.engine {
            format!("the guest ended ({})", lost.how)
        } else {
            format!("it was ended because {}", lost.how)
        });
        machine.kill().await;
    }

    /// The guest's agent was restarted and has forgotten what it was told.
    fn agent_is_back(&self) {
        let Some(machine) = &self.machine else { return };
        let (agent, networked, log) = (
            machine.agent.clone(),
            machine.networked,
            self.logs.vm.clone(),
        );
        let size = self.world.folder(&self.name).sizes().0;
        tokio::spawn(async move {
            log.line("concierge: the agent was restarted");
            let configured = async {
                agent.connect().await?;
                start::configure(&agent, networked, size).await
            };
            if let Err(fault) = configured.await {
                log.line(&format!(
                    "concierge: cannot configure it: {fault}: {:?}",
                    fault.parts().causes
                ));
            }
        });
    }

    /// Lets others see what is so now.
    fn show(&self) {
        let running = self.machine.as_ref().map(|machine| Running {
            engine: machine.chosen.engine.name(),
            engine_reason: machine.chosen.reason.clone(),
            pids: machine.pids(),
            cid: machine.cid(),
            started_s: self.started_s,
            agent: machine.agent.clone(),
            windows: machine.windows.clone(),
        });
        self.view.send_replace(View {
            state: self.state(),
            running,
            last_end: self.last_end.clone(),
        });
    }

    /// Leaves when there is no such VM and nobody asks.
    fn leave(&self) -> bool {
        let mut handles = lock(&self.handles);
        let leave = self.state() == State::Absent && self.queue.is_empty();
        if leave {
            handles.remove(&self.name);
        }
        leave
    }

    fn refusal(&self, refusal: Refusal) -> Fault {
        let name = &self.name;
        match refusal {
            Refusal::NotFound => disk::not_found(name),
            Refusal::Exists => disk::exists(name),
            Refusal::Stopped => {
                let fault =
                    Fault::new(Kind::Busy, "E-VM-STOPPED", format!("{name} is not running"));
                fault.hint(format!("start it: vmc start {name}"))
            }
            Refusal::Runs => Fault::new(Kind::Busy, "E-VM-RUNNING", format!("{name} is running"))
                .hint(format!("stop it first: vmc stop {name}")),
            Refusal::Busy => {
                let message = format!("the disk of {name} is in use by another request");
                Fault::new(Kind::Busy, "E-VM-BUSY", message).hint("try again when that is done")
            }
        }
    }
}

/// Waits for what a machine does by itself.
async fn watch_over(machine: &mut Machine) -> Happened {
    match machine.next().await {
        Ok(News::Announced(_)) => Happened::Announced,
        Ok(News::Replaced) => Happened::Replaced,
        Err(lost) => Happened::Lost(lost),
    }
}

fn done(
    work: impl Future<Output = Result<(), Fault>> + Send + 'static,
) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
    Box::pin(async { Outcome::Done(work.await) })
}

fn refuse(listener: &Listener, fault: Fault) {
    // A client that went away does not hear it.
    let _heard = listener.send(Err(fault.into()));
}
