//! Brings a VM up on the host, stage by stage, each with a deadline.
//!
//! | stage | what happens |
//! |---|---|
//! | `image` | the guest image is found and checked, in full where it is new |
//! | `disk` | the disk is created when it is missing, space is checked, the VM's lock is taken |
//! | `engine` | daemons and engine are started |
//! | `kernel` | the guest boots up to its first program |
//! | `resume` | or goes on from where it was saved |
//! | `agent` | that program is ready to be talked to |
//! | `network` | the guest is told its addresses, the time and its name, and mounts its disk |
//!
//! A failure at any stage ends every process that was started. A client that goes away changes nothing: the
//! start goes on, since another client may be waiting for it.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use link::config::EngineChoice;
use spec::end::EngineEnd;
use tokio::time::{sleep, timeout};
use wire::proto::{Ready, VmConfigured};
use wire::{Bytes, Fault, Kind, VmName};

use super::Logs;
use super::crew::Lost;
use super::machine::{Machine, News, Parts};
use super::work::{self, Order};
use crate::disk::Settings;
use crate::disk::saved::Taken;
use crate::engine::Chosen;
use crate::guest::agent::Agent;
use crate::image::Image;
use crate::network;

/// Longest wait for the engine of an earlier start to let go of the disk; a killed one needs milliseconds.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);

/// How often the lock is tried: the kernel gives no notice.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Longest time from the engine's start to the guest's announcement. Emulated on a loaded machine it takes ten
/// times what it takes on an idle one (2 s).
const BOOT_DEADLINE: Duration = Duration::from_secs(60);

/// Longest time until a guest that goes on answers. The engine reads all of its memory before, and what was saved is used up by
/// then: nobody wants it lost to a slow disk, and a start can be ended by hand.
const RESUME_DEADLINE: Duration = Duration::from_secs(600);

/// How often a guest that goes on is tried.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// A file system smaller than its disk by more than this part is grown.
const GROW_FROM: u64 = 64;

/// What to start.
#[derive(Debug)]
pub(super) struct Start {
    /// Which VM, for whom.
    pub(super) order: Order,
    /// The engine that was asked for.
    pub(super) engine: Option<EngineChoice>,
    /// Whether a saved machine is thrown away.
    pub(super) force_boot: bool,
    /// Where its output goes.
    pub(super) logs: Logs,
}

impl Start {
    /// Brings the VM up.
    ///
    /// # Errors
    /// With stage, cause, the console's last lines and the log's path; no process is left.
    pub(super) async fn run(self) -> Result<Machine, Fault> {
        self.logs.console.begin();
        self.logs.vm.begin();
        self.logs.vm.line("concierge: starting");
        let outcome = self.bring_up().await;
        match &outcome {
            Ok(_) => self.logs.vm.line("concierge: running"),
            Err(fault) => self
                .logs
                .vm
                .line(&format!("concierge: {fault}: {:?}", fault.parts().causes)),
        }
        outcome.map_err(|fault| fault.while_doing(format!("cannot start {}", self.order.name)))
    }

    async fn bring_up(&self) -> Result<Machine, Fault> {
        let stage = self.order.audience.stage("image");
        let image = self.order.world.image()?;
        let files = image.clone();
        let (kernel, root) = work::blocking(move || Ok((files.kernel()?, files.root()?))).await?;
        stage.done();
        let stage = self.order.audience.stage("disk");
        let (settings, disk, lock) = self.prepare_disk().await?;
        let chosen = self.order.world.engine(self.engine)?;
        let taken = self.take_saved(&image, &chosen).await?;
        stage.done();
        let stage = self.order.audience.stage("engine");
        let (taken, file) = taken.unzip();
        let saved = taken.as_ref().map(|taken| taken.saved.clone());
        let parts = Parts {
            name: self.order.name.clone(),
            settings,
            image,
            kernel,
            root,
            disk,
            lock,
            chosen,
            logs: self.logs.clone(),
            saved: file.zip(saved),
        };
        let began = Instant::now();
        let mut machine = match Machine::assemble(&self.order.world, parts) {
            Ok(machine) => machine,
            Err(error) => {
                taken.into_iter().for_each(Taken::put_back);
                return Err(failed("engine", "E-ENGINE-START").because(&error));
            }
        };
        stage.done();
        let came = async {
            match taken {
                Some(taken) => self.resume(&mut machine, taken).await,
                None => self.boot(&mut machine, began).await,
            }
        };
        let booted = tokio::select! {
            came = came => came,
            () = self.order.cancel.cancelled() => Err(Fault::new(
                Kind::Busy,
                "E-START-ENDED",
                "another request ended the start",
            )),
        };
        match booted {
            Ok(()) => Ok(machine),
            Err(fault) => {
                machine.kill().await;
                let path = self.logs.console.path().display().to_string();
                Err(fault.log(self.last_lines(), path))
            }
        }
    }

    /// Takes the machine that was saved, if there is one and it is wanted, and if this image and engine can go on with it.
    async fn take_saved(
        &self,
        image: &Image,
        chosen: &Chosen,
    ) -> Result<Option<(Taken, File)>, Fault> {
        let folder = self.order.world.folder(&self.order.name);
        if self.force_boot {
            work::blocking(move || folder.discard_saved()).await?;
            return Ok(None);
        }
        let Some((taken, file)) = work::blocking(move || folder.take_saved()).await? else {
            return Ok(None);
        };
        let problem = if !chosen.engine.takes_new_daemons() {
            format!("the engine {} cannot go on with it", chosen.engine.name())
        } else if taken.saved.build != image.build() {
            "the guest image is another by now".to_owned()
        } else {
            return Ok(Some((taken, file)));
        };
        taken.put_back();
        let name = &self.order.name;
        let fault = Fault::new(
            Kind::Invalid,
            "E-SAVED",
            format!("{name} cannot go on from where it was saved"),
        );
        Err(fault.cause(problem).hint(force_boot(name)))
    }

    /// Has the disk ready: created when missing, room on the host, and ours alone.
    async fn prepare_disk(&self) -> Result<(Settings, File, File), Fault> {
        let folder = self.order.world.folder(&self.order.name);
        if !folder.exists() {
            let world = &self.order.world;
            self.order
                .make(world.default_settings(), world.default_disk())
                .await?;
        }
        folder.check_space(Bytes(0))?;
        let deadline = Instant::now() + LOCK_DEADLINE;
        let lock = loop {
            match folder.lock() {
                Ok(lock) => break lock,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() > deadline || self.order.cancel.is_cancelled() {
                        let message = format!(
                            "the disk of {} is in use by another process",
                            self.order.name
                        );
                        return Err(Fault::new(Kind::Busy, "E-DISK-LOCKED", message)
                            .hint("an engine of an earlier start may be hanging: testudo doctor"));
                    }
                    sleep(LOCK_INTERVAL).await;
                }
                Err(error) => {
                    let message = format!("cannot lock the disk of {}", self.order.name);
                    return Err(Fault::new(Kind::Internal, "E-DISK", message).because(&error));
                }
            }
        };
        Ok((folder.settings()?, folder.disk()?, lock))
    }

    /// Waits for the guest and configures it; whatever process is lost meanwhile is the failure.
    async fn boot(&self, machine: &mut Machine, began: Instant) -> Result<(), Fault> {
        let kernel = self.order.audience.stage("kernel");
        let ready = timeout(BOOT_DEADLINE, announced(machine))
            .await
            .map_err(|_| {
                let seconds = BOOT_DEADLINE.as_secs();
                failed("kernel", "E-BOOT-AGENT")
                    .cause(format!(
                        "the guest did not announce itself within {seconds} s"
                    ))
                    .hint("see the console's lines; testudo doctor looks for known causes")
            })?;
        let ready = ready.map_err(|lost| self.ended("kernel", lost))?;
        machine.log_figures();
        let in_agent = Duration::from_micros(ready.init_to_ready_us).min(began.elapsed());
        kernel.done_in(began.elapsed() - in_agent);
        let agent = self.order.audience.stage("agent");
        machine
            .agent
            .connect()
            .await
            .map_err(|fault| fault.while_doing(in_stage("agent")))?;
        agent.done_in(in_agent);
        self.configure(machine).await
    }

    /// Waits for a guest that goes on, tells it how late it is, and configures it; `taken` is used up once it may have run.
    async fn resume(&self, machine: &mut Machine, taken: Taken) -> Result<(), Fault> {
        let stage = self.order.audience.stage("resume");
        let agent = machine.agent.clone();
        let reached = timeout(RESUME_DEADLINE, async {
            // Until the engine has read the guest's memory, nobody answers.
            while let Err(fault) = agent.connect().await {
                self.logs.vm.line(&format!("concierge: {fault}"));
                sleep(CONNECT_INTERVAL).await;
            }
        });
        let lost = tokio::select! {
            reached = reached => {
                reached.map_err(|_| {
                    let seconds = RESUME_DEADLINE.as_secs();
                    failed("resume", "E-BOOT-AGENT")
                        .cause(format!("the guest did not answer within {seconds} s"))
                })?;
                None
            }
            lost = machine.lost() => Some(lost),
        };
        if let Some(lost) = lost {
            if !lost.ran() {
                taken.put_back();
            }
            return Err(self.ended("resume", lost));
        }
        drop(taken);
        machine.log_figures();
        stage.done();
        // The disk may have grown meanwhile, and its file system is next.
        let size = self.disk_size();
        let grown = machine.data_disk().grew(size).await;
        grown.map_err(|error| failed("resume", "E-DISK").because(&error))?;
        self.configure(machine).await
    }

    /// Tells the guest what it has to know; whatever process is lost meanwhile is the failure.
    async fn configure(&self, machine: &mut Machine) -> Result<(), Fault> {
        let stage = self.order.audience.stage("network");
        if !machine.networked {
            self.order
                .audience
                .note("passt is not installed: the VM has no network");
        }
        let agent = machine.agent.clone();
        let networked = machine.networked;
        let configured = tokio::select! {
            configured = configure(&agent, networked, self.disk_size()) => configured,
            lost = machine.lost() => Err(failed("network", "E-BOOT-ENGINE").cause(lost.how)),
        };
        configured.map_err(|fault| fault.while_doing(in_stage("network")))?;
        stage.done();
        Ok(())
    }

    /// Returns the failure of `stage` by a process that was lost.
    fn ended(&self, stage: &str, lost: Lost) -> Fault {
        let hint = match lost.end {
            Some(EngineEnd::Snapshot) => force_boot(&self.order.name),
            end => end.and_then(EngineEnd::hint).map_or_else(
                || format!("see {}", self.logs.vm.path().display()),
                str::to_owned,
            ),
        };
        failed(stage, "E-BOOT-ENGINE").cause(lost.how).hint(hint)
    }

    fn disk_size(&self) -> Bytes {
        self.order.world.folder(&self.order.name).sizes().0
    }

    /// Returns the console's last lines; what the processes said when the guest said nothing.
    fn last_lines(&self) -> Vec<String> {
        let lines = self.logs.console.tail();
        if lines.is_empty() {
            self.logs.vm.tail()
        } else {
            lines
        }
    }
}

/// Waits until the guest's agent announces itself.
async fn announced(machine: &mut Machine) -> Result<Ready, Lost> {
    loop {
        if let News::Announced(ready) = machine.next().await? {
            return Ok(ready);
        }
    }
}

/// Returns the advice for a saved machine that cannot go on.
fn force_boot(name: &VmName) -> String {
    format!("boot it anew, without what was in its memory: vmc start --force-boot {name}")
}

/// Tells the guest what it needs, and lets it use a disk that has grown.
///
/// # Errors
/// What the guest answers, or that it does not.
pub(super) async fn configure(
    agent: &Agent,
    networked: bool,
    disk: Bytes,
) -> Result<VmConfigured, Fault> {
    let network = networked.then(network::configuration);
    let mut configured = agent.configure(network).await?;
    let total = configured.disk.as_ref().map_or(0, |disk| disk.total_bytes);
    if is_smaller(total, disk) {
        configured.disk = Some(agent.grow_disk().await?);
    }
    Ok(configured)
}

/// Returns whether a file system of `total` bytes leaves a part of its disk unused; 0 means that it said nothing.
pub(super) fn is_smaller(total: u64, disk: Bytes) -> bool {
    total != 0 && total < disk.0 - disk.0 / GROW_FROM
}

fn failed(stage: &str, code: &str) -> Fault {
    Fault::new(Kind::Unreachable, code, in_stage(stage))
}

fn in_stage(stage: &str) -> String {
    format!("stage {stage} failed")
}
