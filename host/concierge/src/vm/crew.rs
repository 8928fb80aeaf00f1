//! A machine's processes on the host: its engine, and for each device a daemon with what it takes to start it again.
//!
//! A daemon that dies is replaced where the engine can go on with another, so that a crash of one device costs at most what
//! went through it: the guest's connections for vsock, those of its network for the card, nothing for a disk. Else, and
//! when it dies again and again, the machine is lost: a guest that has silently lost a device is worse than none.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use spec::device::{DeviceMessage, DeviceSpec, NetBackend, NetSpec, VhostSocket};
use spec::end::EngineEnd;
use spec::fd::InheritedFd;
use tokio::time::{Instant, timeout};

use crate::child::{self, Child, message_file, name_of};
use crate::engine::{Answer, Control, Engine};
use crate::log::Log;
use crate::network;

/// So many deaths of daemons within [`WINDOW`] are replaced. Each replacement is another attempt for a guest that looks for
/// a hole in one.
const REPLACEMENTS: usize = 3;

/// See [`REPLACEMENTS`].
const WINDOW: Duration = Duration::from_secs(60);

/// A daemon that ends well does so because the engine is ending, which with its memory to give back takes a moment
/// longer: the kernel frees some GiB a second.
const ENGINE_LAST: Duration = Duration::from_secs(2);

/// A process that ended by itself, and took the machine along.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    /// Whether it was the engine.
    pub(crate) engine: bool,
    /// Which it was and how, in words.
    pub(crate) how: String,
    /// Why it was, if the engine said so.
    pub(crate) end: Option<EngineEnd>,
}

impl Lost {
    /// Returns whether the guest may have run before.
    pub(crate) fn ran(&self) -> bool {
        self.end.is_none_or(EngineEnd::ran)
    }
}

/// What every daemon is started with.
#[derive(Debug)]
pub(super) struct Tools {
    /// The program whose `device` command runs the daemons.
    pub(super) crosvm: PathBuf,
    /// Where they say what happens.
    pub(super) log: Log,
}

/// The end of a vhost-user socket that a daemon is given.
pub(super) struct End {
    /// The socket.
    pub(super) socket: OwnedFd,
    /// Whether it listens; otherwise it is connected.
    pub(super) listening: bool,
}

/// What a device is made of.
pub(super) enum Recipe {
    /// One daemon that works on descriptors, which outlive it here; the function says what it does with their copies.
    Descriptors(Vec<OwnedFd>, Describe),
    /// A network card, and the passt behind it, which a new daemon could not talk on with in the middle of a frame.
    Network,
}

/// Returns a device's specification for the numbers of its descriptors.
pub(super) type Describe = Box<dyn Fn(&[InheritedFd]) -> DeviceSpec + Send + Sync>;

/// A device's processes.
pub(super) struct Device {
    name: &'static str,
    recipe: Recipe,
    children: Vec<Child>,
}

impl fmt::Debug for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = out.debug_struct("Device");
        shown.field("name", &self.name);
        shown.field("children", &self.children).finish()
    }
}

impl Device {
    /// Starts what serves the device called `name`.
    ///
    /// # Errors
    /// When a process cannot be started; `NotFound` without passt.
    pub(super) fn start(
        tools: &Tools,
        name: &'static str,
        recipe: Recipe,
        end: End,
    ) -> io::Result<Self> {
        let children = recipe.start(tools, name, end)?;
        Ok(Self {
            name,
            recipe,
            children,
        })
    }

    /// Puts new processes in the place of the old ones, whatever is left of those.
    fn replace(&mut self, tools: &Tools, end: End) -> io::Result<()> {
        // Dropped children are killed, and what jailed itself below one dies with it: no two work on one disk.
        self.children.clear();
        self.children = self.recipe.start(tools, self.name, end)?;
        Ok(())
    }
}

impl Recipe {
    fn start(&self, tools: &Tools, name: &'static str, end: End) -> io::Result<Vec<Child>> {
        match self {
            Self::Descriptors(kept, describe) => {
                let copies = kept.iter().map(OwnedFd::try_clone);
                let copies = copies.collect::<io::Result<Vec<_>>>()?;
                let numbers: Vec<InheritedFd> = copies.iter().map(name_of).collect();
                Ok(vec![daemon(tools, name, describe(&numbers), copies, end)?])
            }
            Self::Network => {
                let (passt, stream) = network::start(&tools.log)?;
                let device = DeviceSpec::Net(NetSpec {
                    backend: NetBackend::Stream(name_of(&stream)),
                    mac: network::GUEST_MAC,
                    mtu: Some(network::MTU),
                });
                let daemon = daemon(tools, name, device, vec![stream], end)?;
                Ok(vec![passt, daemon])
            }
        }
    }
}

/// Starts one daemon.
fn daemon(
    tools: &Tools,
    name: &str,
    device: DeviceSpec,
    mut descriptors: Vec<OwnedFd>,
    end: End,
) -> io::Result<Child> {
    let number = name_of(&end.socket);
    let vhost = if end.listening {
        VhostSocket::Listening(number)
    } else {
        VhostSocket::Connected(number)
    };
    let message = DeviceMessage { vhost, device };
    let text = serde_json::to_vec(&message).map_err(io::Error::other)?;
    let spec = message_file(&text)?;
    let number = name_of(&spec).to_string();
    let arguments = ["device", message.device.kind(), "--spec-fd", &number];
    descriptors.extend([end.socket, spec]);
    child::start(name, &tools.crosvm, &arguments, descriptors, &tools.log)
}

/// All processes of one machine.
#[derive(Debug)]
pub(super) struct Crew {
    program: Arc<dyn Engine>,
    control: Arc<dyn Control>,
    tools: Tools,
    engine: Child,
    devices: Vec<Device>,
    /// When daemons were replaced.
    replaced: VecDeque<Instant>,
    handover: Option<Handover>,
}

/// A new daemon that the engine has been told of.
struct Handover {
    /// How the old one ended.
    how: String,
    answer: Answer,
}

impl fmt::Debug for Handover {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Handover").field(&self.how).finish()
    }
}

impl Crew {
    /// Takes the processes of a machine that `program` runs and `control` asks.
    pub(super) fn new(
        program: Arc<dyn Engine>,
        control: Arc<dyn Control>,
        tools: Tools,
        (engine, devices): (Child, Vec<Device>),
    ) -> Self {
        Self {
            program,
            control,
            tools,
            engine,
            devices,
            replaced: VecDeque::new(),
            handover: None,
        }
    }

    /// Waits until a daemon has been replaced. May be cancelled and called again.
    ///
    /// # Errors
    /// The process whose end is the machine's.
    pub(super) async fn next(&mut self) -> Result<(), Lost> {
        if self.handover.is_none() {
            let (index, status) = first_end(&mut self.engine, &mut self.devices).await;
            let Some((device, child)) = index else {
                return Err(self.lost_engine(status));
            };
            if status.as_ref().is_ok_and(ExitStatus::success)
                && let Ok(status) = timeout(ENGINE_LAST, self.engine.ended()).await
            {
                return Err(self.lost_engine(status));
            }
            let how = how_ended(self.devices[device].children[child].name(), status);
            self.handover = Some(self.replace(device, how)?);
        }
        let Some(handover) = &mut self.handover else {
            return Ok(());
        };
        let answer = handover.answer.as_mut().await;
        let Some(Handover { how, .. }) = self.handover.take() else {
            return Ok(());
        };
        match answer {
            Ok(()) => {
                let line = format!("concierge: {how}; a new one has taken over");
                self.tools.log.line(&line);
                Ok(())
            }
            Err(error) => match timeout(ENGINE_LAST, self.engine.ended()).await {
                Ok(status) => Err(self.lost_engine(status)),
                Err(_) => Err(lost(format!(
                    "{how}, and a new one cannot take over: {error}"
                ))),
            },
        }
    }

    /// Starts another daemon for a device and tells the engine.
    fn replace(&mut self, device: usize, how: String) -> Result<Handover, Lost> {
        if !self.program.takes_new_daemons() {
            return Err(lost(how));
        }
        let now = Instant::now();
        self.replaced
            .retain(|when| now.duration_since(*when) < WINDOW);
        if self.replaced.len() >= REPLACEMENTS {
            return Err(lost(format!(
                "{how}, after {REPLACEMENTS} others within a minute"
            )));
        }
        self.replaced.push_back(now);
        let device = &mut self.devices[device];
        let started = StdUnixStream::pair().and_then(|(ours, theirs)| {
            let end = End {
                socket: theirs.into(),
                listening: false,
            };
            device.replace(&self.tools, end).map(|()| ours)
        });
        match started {
            Ok(ours) => Ok(Handover {
                how,
                answer: self.control.reattach(device.name, ours.into()),
            }),
            Err(error) => Err(lost(format!("{how}, and a new one cannot start: {error}"))),
        }
    }

    /// Kills everything and waits until it is gone.
    pub(super) async fn kill(&mut self) {
        self.engine.kill().await;
        for device in &mut self.devices {
            for child in &mut device.children {
                child.kill().await;
            }
        }
    }

    /// Returns the process ids, the engine's first.
    pub(super) fn pids(&self) -> Vec<u32> {
        let daemons = self.devices.iter().flat_map(|device| &device.children);
        let all = std::iter::once(&self.engine).chain(daemons);
        all.filter_map(Child::pid).collect()
    }

    fn lost_engine(&self, status: io::Result<ExitStatus>) -> Lost {
        let end = status.as_ref().ok();
        let end = end.and_then(|status| self.program.end(*status));
        let how = how_ended(self.engine.name(), status);
        Lost {
            engine: true,
            how: match end {
                Some(end) => format!("{}: {how}", end.meaning()),
                None => how,
            },
            end,
        }
    }
}

/// The place of a daemon: its device and which child of that.
type Place = (usize, usize);

/// Waits until a process ends; it is the engine that has no place.
async fn first_end(
    engine: &mut Child,
    devices: &mut [Device],
) -> (Option<Place>, io::Result<ExitStatus>) {
    poll_fn(|context| {
        if let Poll::Ready(status) = pin!(engine.ended()).poll(context) {
            return Poll::Ready((None, status));
        }
        for (index, device) in devices.iter_mut().enumerate() {
            for (child, process) in device.children.iter_mut().enumerate() {
                if let Poll::Ready(status) = pin!(process.ended()).poll(context) {
                    return Poll::Ready((Some((index, child)), status));
                }
            }
        }
        Poll::Pending
    })
    .await
}

/// Returns the end of a machine by a daemon's.
fn lost(how: String) -> Lost {
    Lost {
        engine: false,
        how,
        end: None,
    }
}

fn how_ended(name: &str, status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => child::describe(name, status),
        Err(error) => format!("{name} cannot be watched: {error}"),
    }
}
