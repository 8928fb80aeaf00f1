//! A VM's processes on the host: its engine and daemons, started side by side, watched, and ended together.
//!
//! None of them outlives the others for long: a daemon ends when the engine closes its socket, and the engine is
//! ended here when a daemon is lost, since a machine whose disk or network is gone is broken and a guest cannot be
//! told. Nothing waits for a socket to appear: every socket exists before the process that serves it.

use std::fs::{DirBuilder, File};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use spec::device::{
    BlockFormat, BlockSpec, DeviceMessage, DeviceSpec, NetBackend, NetSpec, VhostSocket, VsockSpec,
};
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
use crate::child::{self, Child, message_file, name_of};
use crate::disk::Settings;
use crate::engine::{Chosen, Control, OwnDisk, Plug};
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
    /// The engine first.
    children: Vec<Child>,
    control: Arc<dyn Control>,
    console: JoinHandle<()>,
    tasks: JoinSet<()>,
    cid: Cid,
}

/// A child that ended by itself.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    /// Whether it was the engine.
    pub(crate) engine: bool,
    /// Which it was and how, in words.
    pub(crate) how: String,
    /// What the user can do about it.
    pub(crate) hint: Option<&'static str>,
}

impl Machine {
    /// Starts all processes of a machine. What was started before a failure is killed.
    ///
    /// # Errors
    /// When a file, socket or process cannot be made.
    pub(crate) fn assemble(world: &Arc<World>, parts: Parts) -> io::Result<Self> {
        let cid = world.cid();
        let token = ready::token()?;
        let mut sockets = Sockets::make(world, &cid, &token, &parts.image)?;
        let (console_ours, console_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let (control_ours, control_theirs) = StdUnixStream::pair()?;
        control_ours.set_nonblocking(true)?;
        let mut builder = Builder {
            world,
            chosen: &parts.chosen,
            log: &parts.logs.vm,
            sockets: &sockets.folder,
            devices: Vec::new(),
            own_disks: Vec::new(),
            descriptors: Vec::new(),
            children: Vec::new(),
        };
        builder.block(ROOT, parts.root, true)?;
        builder.growing_disk(DATA, parts.disk)?;
        builder.vsock(sockets.vsock, &cid)?;
        builder.device("rng", Function::Rng {}, DeviceSpec::Rng, Vec::new())?;
        let networked = builder.net()?;
        let spec = VmSpec {
            version: VM_SPEC_VERSION,
            name: parts.name.to_string(),
            memory: spec::units::Mib(parts.settings.memory.0),
            vcpus: parts.settings.cpus,
            kernel: Kernel {
                image: builder.keep(parts.kernel),
                cmdline: command_line(&token),
                initramfs: None,
            },
            snapshot: None,
            console: Console {
                output: builder.keep(console_theirs),
                input: None,
            },
            control: builder.keep(control_theirs),
            devices: std::mem::take(&mut builder.devices),
            options: Options::default(),
        };
        builder.keep(parts.lock);
        let children = builder.engine(&spec)?;
        let vsock = world.places.vsock(cid.number);
        let console = pipe::Receiver::from_owned_fd(console_ours)?;
        let control = UnixStream::from_std(control_ours)?;
        let mut policy = Policy::default();
        policy.clipboard.modes = parts.settings.clipboard;
        let windows = windows::Setting {
            vm: parts.name.clone(),
            program: world.windows.clone(),
            vsock: vsock.clone(),
            folder: world.places.displays().join(cid.number.to_string()),
            policy,
            log: parts.logs.vm.clone(),
        };
        let windows = Windows::new(windows, &mut sockets.tasks);
        Ok(Self {
            agent: Agent::new(parts.name, vsock),
            control: Arc::from(parts.chosen.engine.control(control, parts.logs.vm.clone())),
            chosen: parts.chosen,
            announcements: sockets.announcements,
            networked,
            windows,
            children,
            console: tokio::spawn(collect(console, parts.logs.console)),
            tasks: sockets.tasks,
            cid,
        })
    }

    /// Waits until one of the processes ends. May be cancelled and called again.
    pub(crate) async fn lost(&mut self) -> Lost {
        first_lost(&mut self.children, &self.chosen).await
    }

    /// Waits for the next announcement of the guest's agent, or for the end of a process. May be cancelled and
    /// called again.
    ///
    /// # Errors
    /// The process that ended.
    pub(crate) async fn next(&mut self) -> Result<Ready, Lost> {
        let (announcements, children) = (&mut self.announcements, &mut self.children);
        tokio::select! {
            Some(ready) = announcements.recv() => Ok(ready),
            lost = first_lost(children, &self.chosen) => Err(lost),
        }
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
        for child in &mut self.children {
            child.kill().await;
        }
        // The host end of its windows is a child of one of them.
        self.tasks.shutdown().await;
        let _drained = tokio::time::timeout(LAST_LINES, &mut self.console).await;
    }

    /// Returns the process ids, the engine's first.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().filter_map(Child::pid).collect()
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

/// Waits until one of the children ends. A daemon that ends well does so because the engine is ending, which with its
/// memory to give back takes a moment longer; then it is the engine that is reported.
async fn first_lost(children: &mut [Child], chosen: &Chosen) -> Lost {
    /// The kernel frees some GiB a second.
    const ENGINE_LAST: Duration = Duration::from_secs(2);
    let (index, status) = poll_fn(|context| {
        for (index, child) in children.iter_mut().enumerate() {
            if let Poll::Ready(status) = pin!(child.ended()).poll(context) {
                return Poll::Ready((index, status));
            }
        }
        Poll::Pending
    })
    .await;
    let by_itself =
        |status: &io::Result<ExitStatus>| status.as_ref().is_ok_and(ExitStatus::success);
    if index != 0 && by_itself(&status) {
        let engine = tokio::time::timeout(ENGINE_LAST, children[0].ended()).await;
        if let Ok(status) = engine {
            return lost_engine(&children[0], status, chosen);
        }
    }
    if index == 0 {
        return lost_engine(&children[0], status, chosen);
    }
    Lost {
        engine: false,
        how: how_ended(children[index].name(), status),
        hint: None,
    }
}

fn lost_engine(child: &Child, status: io::Result<ExitStatus>, chosen: &Chosen) -> Lost {
    let known = status.as_ref().ok();
    let known = known.and_then(|status| chosen.engine.meaning(*status));
    let how = how_ended(child.name(), status);
    Lost {
        engine: true,
        how: known.map_or_else(|| how.clone(), |(meaning, _)| format!("{meaning}: {how}")),
        hint: known.and_then(|(_, hint)| hint),
    }
}

fn how_ended(name: &str, status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => child::describe(name, status),
        Err(error) => format!("{name} cannot be watched: {error}"),
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
    world: &'a World,
    chosen: &'a Chosen,
    log: &'a Log,
    sockets: &'a Path,
    devices: Vec<Device>,
    own_disks: Vec<OwnDisk>,
    descriptors: Vec<OwnedFd>,
    children: Vec<Child>,
}

impl Builder<'_> {
    /// Hands `descriptor` to the engine and returns its name there.
    fn keep(&mut self, descriptor: impl Into<OwnedFd>) -> InheritedFd {
        let descriptor = descriptor.into();
        let name = name_of(&descriptor);
        self.descriptors.push(descriptor);
        name
    }

    fn block(&mut self, name: &'static str, image: File, read_only: bool) -> io::Result<()> {
        let device = DeviceSpec::Block(BlockSpec {
            image: name_of(&image),
            format: BlockFormat::Raw,
            backing: Vec::new(),
            read_only,
            serial: name.to_owned(),
            queues: 1,
        });
        self.device(
            name,
            Function::Block { queues: 1 },
            device,
            vec![image.into()],
        )
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
        let device = DeviceSpec::Vsock(VsockSpec {
            listener: name_of(&listener),
            directory: name_of(&directory),
            guest_cid: cid.number,
        });
        self.device(
            "vsock",
            Function::Vsock {},
            device,
            vec![listener, directory],
        )
    }

    /// Adds the network card; returns false when passt is not installed, and the guest has none.
    fn net(&mut self) -> io::Result<bool> {
        let (passt, stream) = match network::start(self.log) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            started => started?,
        };
        self.children.push(passt);
        let device = DeviceSpec::Net(NetSpec {
            backend: NetBackend::Stream(name_of(&stream)),
            mac: network::GUEST_MAC,
            mtu: Some(network::MTU),
        });
        let function = Function::Net {
            queue_pairs: 1,
            mac: network::GUEST_MAC,
        };
        self.device("net", function, device, vec![stream])?;
        Ok(true)
    }

    /// Starts a device's daemon and plugs it into the machine.
    fn device(
        &mut self,
        name: &'static str,
        function: Function,
        device: DeviceSpec,
        mut descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let path = self.sockets.join(format!("{name}.vhost"));
        let Plug {
            engine,
            daemon,
            listening,
        } = self.chosen.engine.plug(&function, &path)?;
        let vhost = if listening {
            VhostSocket::Listening(name_of(&daemon))
        } else {
            VhostSocket::Connected(name_of(&daemon))
        };
        let message = DeviceMessage { vhost, device };
        let text = serde_json::to_vec(&message).map_err(io::Error::other)?;
        let spec = message_file(&text)?;
        let number = name_of(&spec).to_string();
        let arguments = ["device", message.device.kind(), "--spec-fd", &number];
        descriptors.extend([daemon, spec]);
        let child = child::start(name, &self.world.crosvm, &arguments, descriptors, self.log)?;
        self.children.push(child);
        let socket = self.keep(engine);
        self.devices.push(Device {
            name: name.to_owned(),
            socket,
            function,
            queue_size: QUEUE_SIZE,
        });
        Ok(())
    }

    /// Starts the engine and returns all children, the engine first.
    fn engine(mut self, spec: &VmSpec) -> io::Result<Vec<Child>> {
        spec.validate().map_err(io::Error::other)?;
        let engine = &self.chosen.engine;
        let invocation = engine.invocation(spec, &self.own_disks)?;
        let mut descriptors = std::mem::take(&mut self.descriptors);
        descriptors.extend(invocation.descriptors);
        let (program, arguments) = (&invocation.program, &invocation.arguments);
        let child = child::start(engine.name(), program, arguments, descriptors, self.log)?;
        self.children.insert(0, child);
        Ok(self.children)
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
