//! A VM's processes on the host: its engine and daemons, started side by side, watched, and ended together.
//!
//! None of them outlives the others for long: a daemon ends when the engine closes its socket, and what becomes of a
//! machine that loses a daemon is in [`super::crew`]. Nothing waits for a socket to appear: every socket exists before
//! the process that serves it.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use spec::device::{BlockFormat, BlockSpec, DeviceSpec, VsockSpec};
use spec::fd::InheritedFd;
use spec::vm::{Console, Device, Function, Kernel, Options, VM_SPEC_VERSION, VmSpec};
use spec::windows::Policy;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use wire::proto::Ready;
use wire::{Bytes, VmName, ports};

use super::Logs;
use super::crew::{Crew, Device as Served, End, Lost, Recipe, Tools};
use crate::child::{self, name_of};
use crate::disk::Settings;
use crate::disk::saved::Saved;
use crate::engine::{Answer, Chosen, Control, OwnDisk, Plug};
use crate::guest::agent::Agent;
use crate::guest::windows::{self, Windows};
use crate::guest::{self, extras, ready, resolver};
use crate::image::Image;
use crate::log::Log;
use crate::network;
use crate::world::{Cid, World};

/// Descriptors in a virtqueue, as QEMU's own default.
const QUEUE_SIZE: u16 = 256;

/// Announcements that wait to be looked at; a guest that sends more waits itself.
const READY_QUEUE: usize = 1;

/// The first disk, by its name and serial number: the guest's read-only root.
const ROOT: &str = "root";

/// The second disk: what the guest keeps.
const DATA: &str = "data";

/// What a machine is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The VM's name.
    pub(crate) name: VmName,
    /// Processors and memory.
    pub(crate) settings: Settings,
    /// The extras that the guest may fetch.
    pub(crate) image: Image,
    /// The kernel.
    pub(crate) kernel: File,
    /// The guest's read-only root.
    pub(crate) root: File,
    /// The data disk.
    pub(crate) disk: File,
    /// The VM's lock, for the engine to hold.
    pub(crate) lock: File,
    /// The engine.
    pub(crate) chosen: Chosen,
    /// Where output goes.
    pub(crate) logs: Logs,
    /// What it goes on from: the engine's file, and what must be as it was.
    pub(crate) saved: Option<(File, Saved)>,
}

/// The processes of one VM.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The agent in the guest.
    pub(crate) agent: Agent,
    /// The engine and why it is that one.
    pub(crate) chosen: Chosen,
    /// Announcements of the guest's agent.
    pub(crate) announcements: mpsc::Receiver<Ready>,
    /// Whether the guest has a network card.
    pub(crate) networked: bool,
    /// Where its windows are shown.
    pub(crate) windows: Windows,
    /// What must be so again when it goes on after it was saved.
    pub(crate) traits: Saved,
    crew: Crew,
    control: Arc<dyn Control>,
    console: JoinHandle<()>,
    tasks: JoinSet<()>,
    cid: Cid,
}

/// What a machine does by itself while it lives.
#[derive(Debug)]
pub(crate) enum News {
    /// The guest's agent is up.
    Announced(Ready),
    /// A daemon died and was replaced.
    Replaced,
}

impl Machine {
    /// Starts all processes of a machine. What was started before a failure is killed.
    ///
    /// # Errors
    /// When a file, socket or process cannot be made.
    pub(crate) fn assemble(world: &Arc<World>, parts: Parts) -> io::Result<Self> {
        let cid = world.cid();
        let (snapshot, traits) = match parts.saved {
            Some((file, saved)) => (Some(file), saved),
            None => (
                None,
                Saved::new(&parts.settings, &parts.image, ready::token()?),
            ),
        };
        let mut sockets = Sockets::make(world, &cid, &traits.token, &parts.image)?;
        let (console_ours, console_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let (control_ours, control_theirs) = StdUnixStream::pair()?;
        control_ours.set_nonblocking(true)?;
        let tools = Tools {
            crosvm: world.crosvm.clone(),
            log: parts.logs.vm.clone(),
        };
        let mut builder = Builder::new(&parts.chosen, tools, &sockets.folder);
        builder.block(ROOT, parts.root, true)?;
        builder.growing_disk(DATA, parts.disk)?;
        builder.vsock(sockets.vsock, &cid)?;
        builder.rng()?;
        let networked = builder.net()?;
        let spec = VmSpec {
            version: VM_SPEC_VERSION,
            name: parts.name.to_string(),
            memory: spec::units::Mib(traits.memory.0),
            vcpus: traits.cpus,
            kernel: Kernel {
                image: builder.keep(parts.kernel),
                cmdline: command_line(&traits.token),
                initramfs: None,
            },
            snapshot: snapshot.map(|file| builder.keep(file)),
            console: Console {
                output: builder.keep(console_theirs),
                input: None,
            },
            control: builder.keep(control_theirs),
            devices: std::mem::take(&mut builder.devices),
            options: Options::default(),
        };
        builder.keep(parts.lock);
        let control = UnixStream::from_std(control_ours)?;
        let engine = &parts.chosen.engine;
        let control: Arc<dyn Control> = Arc::from(engine.control(control, parts.logs.vm.clone()));
        let crew = builder.finish(&spec, Arc::clone(&control))?;
        let console = pipe::Receiver::from_owned_fd(console_ours)?;
        let windows = windows_of(world, &cid, (&parts.name, &parts.settings), &parts.logs);
        let windows = Windows::new(windows, &mut sockets.tasks);
        Ok(Self {
            agent: Agent::new(parts.name, world.places.vsock(cid.number)),
            control,
            chosen: parts.chosen,
            announcements: sockets.announcements,
            networked,
            windows,
            traits,
            crew,
            console: tokio::spawn(collect(console, parts.logs.console)),
            tasks: sockets.tasks,
            cid,
        })
    }

    /// Waits until it has ended, or has lost what it cannot do without. May be cancelled and called again.
    pub(crate) async fn lost(&mut self) -> Lost {
        loop {
            if let Err(lost) = self.crew.next().await {
                return lost;
            }
        }
    }

    /// Waits for what it does next. May be cancelled and called again.
    ///
    /// # Errors
    /// How it ended.
    pub(crate) async fn next(&mut self) -> Result<News, Lost> {
        let (announcements, crew) = (&mut self.announcements, &mut self.crew);
        tokio::select! {
            Some(ready) = announcements.recv() => Ok(News::Announced(ready)),
            next = crew.next() => next.map(|()| News::Replaced),
        }
    }

    /// Writes the whole machine into the empty `file`; it stands still then, or goes on when that fails.
    pub(crate) fn save(&self, file: File) -> Answer {
        self.control.save(file.into())
    }

    /// Returns a way to make the guest see that its data disk has grown.
    pub(crate) fn data_disk(&self) -> DataDisk {
        DataDisk(Arc::clone(&self.control))
    }

    /// Says in the log what the engine has done so far.
    pub(crate) fn log_figures(&self) {
        self.control.log_figures();
    }

    /// Presses the power button, for a guest whose agent does not answer.
    pub(crate) fn power_button(&self) {
        self.control.power_button();
    }

    /// Kills everything, waits until it is gone, and lets the console's last lines arrive.
    pub(crate) async fn kill(mut self) {
        /// The pipe has ended with the engine; this is for a machine that is busy otherwise.
        const LAST_LINES: Duration = Duration::from_millis(500);
        self.crew.kill().await;
        // The host end of its windows is a child of one of them.
        self.tasks.shutdown().await;
        let _drained = tokio::time::timeout(LAST_LINES, &mut self.console).await;
    }

    /// Returns the process ids, the engine's first.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.crew.pids()
    }

    /// Returns the context identifier.
    pub(crate) fn cid(&self) -> u32 {
        self.cid.number
    }
}

/// The data disk of a running machine.
#[derive(Debug)]
pub(crate) struct DataDisk(Arc<dyn Control>);

impl DataDisk {
    /// Lets the guest see that it has `size` bytes now.
    ///
    /// # Errors
    /// When the engine refuses or is gone.
    pub(crate) async fn grew(&self, size: Bytes) -> io::Result<()> {
        self.0.disk_grew(DATA, size).await
    }
}

/// Returns how the machine's windows are shown.
fn windows_of(
    world: &World,
    cid: &Cid,
    (name, settings): (&VmName, &Settings),
    logs: &Logs,
) -> windows::Setting {
    let mut policy = Policy::default();
    policy.clipboard.modes = settings.clipboard;
    windows::Setting {
        vm: name.clone(),
        program: world.windows.clone(),
        vsock: world.places.vsock(cid.number),
        folder: world.places.displays().join(cid.number.to_string()),
        policy,
        log: logs.vm.clone(),
    }
}

/// Returns the kernel's command line, without what the engine adds.
fn command_line(token: &str) -> String {
    let level = std::env::var("TESTUDO_LOG").unwrap_or_default();
    // A word of the user's environment goes onto a command line: only a plain one does.
    let plain = !level.is_empty() && level.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let level = if plain { &level } else { "info" };
    format!(
        "root=/dev/vda ro rootfstype=erofs console=hvc0 quiet testudo.token={token} testudo.log={level}"
    )
}

/// The VM's sockets and those who serve them.
struct Sockets {
    folder: PathBuf,
    vsock: OwnedFd,
    announcements: mpsc::Receiver<Ready>,
    tasks: JoinSet<()>,
}

impl Sockets {
    /// Makes the VM's folder of sockets and serves the guest's connections.
    fn make(world: &World, cid: &Cid, token: &str, image: &Image) -> io::Result<Self> {
        let folder = world.places.vm_sockets(cid.number);
        let mut private = DirBuilder::new();
        private.mode(0o700);
        match private.create(world.places.sockets()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        private.create(&folder)?;
        let path = world.places.vsock(cid.number);
        let vsock = link::unix::listen(&path)?.into_std()?;
        // tokio's listeners do not block; the daemon expects one that does.
        vsock.set_nonblocking(false)?;
        let mut tasks = JoinSet::new();
        let (announce, announcements) = mpsc::channel(READY_QUEUE);
        let token: Arc<str> = token.into();
        guest::serve_each(
            &mut tasks,
            guest::listen(&path, ports::READY)?,
            move |stream| {
                let (announce, token) = (announce.clone(), Arc::clone(&token));
                async move {
                    let ready = ready::receive(stream, &token).await?;
                    announce.send(ready).await.map_err(io::Error::other)
                }
            },
        );
        guest::serve_each(
            &mut tasks,
            guest::listen(&path, ports::RESOLVER)?,
            resolver::serve,
        );
        let image = image.clone();
        guest::serve_each(
            &mut tasks,
            guest::listen(&path, ports::EXTRAS)?,
            move |stream| extras::serve(stream, image.clone()),
        );
        Ok(Self {
            folder,
            vsock: vsock.into(),
            announcements,
            tasks,
        })
    }
}

/// Collects devices and their daemons.
struct Builder<'a> {
    chosen: &'a Chosen,
    tools: Tools,
    sockets: &'a Path,
    devices: Vec<Device>,
    own_disks: Vec<OwnDisk>,
    descriptors: Vec<OwnedFd>,
    served: Vec<Served>,
}

impl<'a> Builder<'a> {
    fn new(chosen: &'a Chosen, tools: Tools, sockets: &'a Path) -> Self {
        Self {
            chosen,
            tools,
            sockets,
            devices: Vec::new(),
            own_disks: Vec::new(),
            descriptors: Vec::new(),
            served: Vec::new(),
        }
    }

    /// Hands `descriptor` to the engine and returns its name there.
    fn keep(&mut self, descriptor: impl Into<OwnedFd>) -> InheritedFd {
        let descriptor = descriptor.into();
        let name = name_of(&descriptor);
        self.descriptors.push(descriptor);
        name
    }

    fn block(&mut self, name: &'static str, image: File, read_only: bool) -> io::Result<()> {
        let describe = move |numbers: &[InheritedFd]| {
            DeviceSpec::Block(BlockSpec {
                image: numbers[0],
                format: BlockFormat::Raw,
                backing: Vec::new(),
                read_only,
                serial: name.to_owned(),
                queues: 1,
            })
        };
        let recipe = Recipe::Descriptors(vec![image.into()], Box::new(describe));
        self.device(name, Function::Block { queues: 1 }, recipe)
    }

    /// Adds a disk that may grow, served by whoever can then tell the guest.
    fn growing_disk(&mut self, name: &'static str, image: File) -> io::Result<()> {
        if !self.chosen.engine.serves_growing_disks() {
            return self.block(name, image, false);
        }
        let image = self.keep(image);
        self.own_disks.push(OwnDisk { name, image });
        Ok(())
    }

    fn vsock(&mut self, listener: OwnedFd, cid: &Cid) -> io::Result<()> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let directory = rustix::fs::open(self.sockets, flags, Mode::empty())?;
        let guest_cid = cid.number;
        let describe = move |numbers: &[InheritedFd]| {
            DeviceSpec::Vsock(VsockSpec {
                listener: numbers[0],
                directory: numbers[1],
                guest_cid,
            })
        };
        let recipe = Recipe::Descriptors(vec![listener, directory], Box::new(describe));
        self.device("vsock", Function::Vsock {}, recipe)
    }

    fn rng(&mut self) -> io::Result<()> {
        let recipe = Recipe::Descriptors(Vec::new(), Box::new(|_| DeviceSpec::Rng));
        self.device("rng", Function::Rng {}, recipe)
    }

    /// Adds the network card; returns false when passt is not installed, and the guest has none.
    fn net(&mut self) -> io::Result<bool> {
        if !network::is_installed() {
            return Ok(false);
        }
        let function = Function::Net {
            queue_pairs: 1,
            mac: network::GUEST_MAC,
        };
        self.device("net", function, Recipe::Network)?;
        Ok(true)
    }

    /// Starts what serves a device and plugs it into the machine.
    fn device(&mut self, name: &'static str, function: Function, recipe: Recipe) -> io::Result<()> {
        let path = self.sockets.join(format!("{name}.vhost"));
        let Plug {
            engine,
            daemon,
            listening,
        } = self.chosen.engine.plug(&function, &path)?;
        let end = End {
            socket: daemon,
            listening,
        };
        let served = Served::start(&self.tools, name, recipe, end)?;
        self.served.push(served);
        let socket = self.keep(engine);
        self.devices.push(Device {
            name: name.to_owned(),
            socket,
            function,
            queue_size: QUEUE_SIZE,
        });
        Ok(())
    }

    /// Starts the engine and returns all processes.
    fn finish(mut self, spec: &VmSpec, control: Arc<dyn Control>) -> io::Result<Crew> {
        spec.validate().map_err(io::Error::other)?;
        let engine = &self.chosen.engine;
        let invocation = engine.invocation(spec, &self.own_disks)?;
        let mut descriptors = std::mem::take(&mut self.descriptors);
        descriptors.extend(invocation.descriptors);
        let (program, arguments) = (&invocation.program, &invocation.arguments);
        let log = &self.tools.log;
        let child = child::start(engine.name(), program, arguments, descriptors, log)?;
        let processes = (child, self.served);
        Ok(Crew::new(
            Arc::clone(engine),
            control,
            self.tools,
            processes,
        ))
    }
}

/// Copies the guest's console into its log until the engine ends.
async fn collect(mut console: pipe::Receiver, log: Log) {
    /// A pipe holds 64 KiB.
    const BLOCK: usize = 16 << 10;
    let mut block = vec![0; BLOCK];
    while let Ok(count @ 1..) = console.read(&mut block).await {
        log.write(&block[..count]);
    }
}
