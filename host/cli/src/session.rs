//! A process in the guest, joined to this terminal: its bytes, its window, its signals, its exit status.
//!
//! ```text
//!   stdin ──► input thread ──┐                        ┌──► stdout, stderr
//!                            ├─► vshd in the guest ───┤   output thread
//!   signals ► signal thread ─┘                        └──► outcome
//! ```
//! Three plain threads with blocking reads: a keystroke is copied once and no direction can stop another. The
//! main thread only waits for the first [`Outcome`], so that even a blocked stdout cannot keep us from leaving.

mod escape;
mod farewell;
mod input;
mod output;
pub(crate) mod signals;
pub(crate) mod terminal;
mod writer;

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use wire::proto::vsh_reply::Reply;
use wire::proto::vsh_request::Request;
use wire::proto::{VmRef, VshReply, VshRequest, VshSetup};
use wire::{ContainerName, Fault, Kind, VmName, ports, vsh};

use crate::client::{Client, answer};
use crate::end::SESSION_FAILED;
use crate::options::SessionOptions;
use crate::ui::Ui;
use terminal::RawTerminal;
use writer::Writer;

/// Longest time for vshd to say that the process runs: it may have to start the container's first process.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// A running process in the guest.
#[derive(Debug)]
pub(crate) struct Session {
    stream: UnixStream,
    /// Bytes that came behind the announcement that the process runs.
    early: Vec<u8>,
    terminal: bool,
    place: Place,
}

/// Where a process is to run.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The VM, which runs.
    pub(crate) vm: VmName,
    /// The container; none for the VM itself.
    pub(crate) container: Option<ContainerName>,
}

/// How a session ended.
#[derive(Debug)]
enum Outcome {
    /// The process ended with this status.
    Exited(u8),
    /// This signal ended the process, and not one that its user sends often.
    Ended(i32),
    /// The user typed the escape.
    Left,
    /// This signal asked us to end.
    Signalled(i32),
    /// Whoever read our stdout went away.
    PipeGone,
    /// The connection ended before the process did.
    Lost(Fault),
}

impl Session {
    /// Starts `command` (none: the login shell) in `place`.
    pub(crate) async fn open(
        client: &Client,
        place: &Place,
        options: &SessionOptions,
        command: Vec<String>,
    ) -> Result<Self, Fault> {
        let vsock = answer(client.vms().vsock(VmRef {
            vm: place.vm.to_string(),
        }))
        .await?;
        let terminal = terminal::wanted(&options.terminal);
        let setup = setup(place, options, command, terminal)?;
        let start = start(Path::new(&vsock.path), setup);
        let (stream, early) = match tokio::time::timeout(START_DEADLINE, start).await {
            Ok(started) => started.map_err(|fault| fault.while_doing(attempt(place)))?,
            Err(_) => {
                return Err(unreachable(place).cause(format!(
                    "vshd did not answer within {} s",
                    START_DEADLINE.as_secs()
                )));
            }
        };
        Ok(Self {
            stream,
            early,
            terminal,
            place: place.clone(),
        })
    }

    /// Joins the process to this terminal until one of them ends; returns the exit status.
    pub(crate) fn run(self, runtime: Runtime, ui: &Ui) -> Result<u8, Fault> {
        let lost = |error: std::io::Error| {
            Fault::new(Kind::Internal, "E-SESSION", "cannot join the process").because(&error)
        };
        let writer = Arc::new(Writer::new(self.stream.try_clone().map_err(lost)?));
        let raw = if self.terminal {
            RawTerminal::enter().map_err(lost)?
        } else {
            None
        };
        let (tell, outcomes) = mpsc::channel();
        let reader = output::Reader::new(self.early, self.stream);
        let signals = {
            let _entered = runtime.enter();
            signals::Forwarder::new(Arc::clone(&writer), tell.clone(), self.terminal)
        };
        let input = input::Input::new(writer, raw.is_some());
        std::thread::spawn(move || signals.run(&runtime));
        std::thread::spawn({
            let tell = tell.clone();
            move || tell.send(output::run(reader))
        });
        std::thread::spawn(move || {
            if let Some(outcome) = input.run() {
                tell.send(outcome).ok();
            }
        });
        let outcome = outcomes
            .recv()
            .expect("the output thread always tells how it ended");
        let by_itself = matches!(outcome, Outcome::Exited(_));
        if !by_itself && raw.is_some() {
            terminal::reset_modes();
        }
        drop(raw);
        match outcome {
            Outcome::Exited(status) => Ok(status),
            Outcome::Ended(signal) => {
                if let Some(fault) = farewell::reason(&self.place) {
                    ui.note(&fault.to_string());
                }
                Ok(128 + u8::try_from(signal).unwrap_or_default())
            }
            Outcome::PipeGone => Err(Fault::new(
                Kind::Internal,
                crate::end::PIPE_CODE,
                "stdout is closed",
            )),
            Outcome::Signalled(signal) => Ok(128 + u8::try_from(signal).unwrap_or_default()),
            Outcome::Left => {
                ui.note("left the session; what ran in it was hung up");
                Ok(SESSION_FAILED)
            }
            Outcome::Lost(fault) => Err(farewell::reason(&self.place).unwrap_or(fault)),
        }
    }
}

fn setup(
    place: &Place,
    options: &SessionOptions,
    command: Vec<String>,
    terminal: bool,
) -> Result<VshSetup, Fault> {
    let mut environment = HashMap::new();
    let mut pass = |name: &str, otherwise: Option<&str>| {
        if let Some(value) = std::env::var(name).ok().or(otherwise.map(str::to_owned)) {
            environment.insert(name.to_owned(), value);
        }
    };
    if terminal {
        pass("TERM", Some("linux"));
        pass("COLORTERM", None);
    }
    environment.extend(options.environment.iter().cloned());
    let is_locale = |name: &str| matches!(name, "LANG" | "LANGUAGE") || name.starts_with("LC_");
    let setup = VshSetup {
        container: place
            .container
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        user: options.user.clone().unwrap_or_default(),
        argv: command,
        environment,
        locale: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| is_locale(name))
            .collect(),
        directory: options.cwd.clone().unwrap_or_default(),
        window: terminal.then(terminal::window),
    };
    let size = prost_length(&setup);
    if size > vsh::FRAME_MAX {
        return Err(
            Fault::new(Kind::Invalid, "E-LIMIT", "the command line is too long").cause(format!(
                "with its environment it has {size} bytes, allowed are {}",
                vsh::FRAME_MAX
            )),
        );
    }
    Ok(setup)
}

/// Returns an upper bound of the encoded length: the texts and room for the tags around each.
fn prost_length(setup: &VshSetup) -> usize {
    const TAGS: usize = 16;
    let variables = setup
        .environment
        .iter()
        .chain(&setup.locale)
        .map(|(key, value)| key.len() + value.len() + TAGS);
    let words = setup.argv.iter().map(|word| word.len() + TAGS);
    let names = setup.container.len() + setup.user.len() + setup.directory.len();
    variables.chain(words).sum::<usize>() + names + 8 * TAGS
}

/// Connects to vshd and waits until the process runs; returns what came behind that.
async fn start(socket: &Path, setup: VshSetup) -> Result<(UnixStream, Vec<u8>), Fault> {
    let refused = |error: &std::io::Error| {
        Fault::new(Kind::Unreachable, "E-VSHD", "cannot reach vshd in the VM").because(error)
    };
    let mut stream = link::hybrid::connect(socket, ports::VSHD)
        .await
        .map_err(|e| refused(&e))?;
    let mut frame = Vec::new();
    vsh::encode(
        &VshRequest {
            request: Some(Request::Setup(setup)),
        },
        &mut frame,
    );
    stream.write_all(&frame).await.map_err(|e| refused(&e))?;
    let mut early = Vec::new();
    let first = loop {
        if let Some(reply) = vsh::decode::<VshReply>(&mut early).map_err(|e| garbled(&e))? {
            break reply;
        }
        if stream.read_buf(&mut early).await.map_err(|e| refused(&e))? == 0 {
            return Err(Fault::new(
                Kind::Unreachable,
                "E-VSHD",
                "vshd hung up without an answer",
            ));
        }
    };
    match first.reply {
        Some(Reply::Started(_)) => {}
        Some(Reply::Failed(fault)) => return Err(fault.into()),
        _ => {
            return Err(Fault::new(
                Kind::Internal,
                "E-VSHD",
                "vshd answered something else than a start",
            ));
        }
    }
    let stream = stream.into_std().map_err(|e| refused(&e))?;
    stream.set_nonblocking(false).map_err(|e| refused(&e))?;
    Ok((stream, early))
}

fn garbled(error: &vsh::FrameError) -> Fault {
    Fault::new(Kind::Internal, "E-VSHD", "cannot understand vshd").because(error)
}

fn attempt(place: &Place) -> String {
    match &place.container {
        Some(container) => format!(
            "cannot run a command in container {container} of {}",
            place.vm
        ),
        None => format!("cannot run a command in VM {}", place.vm),
    }
}

fn unreachable(place: &Place) -> Fault {
    Fault::new(Kind::Unreachable, "E-VSHD", attempt(place))
}
