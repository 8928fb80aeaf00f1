//! vshd behind a VM's hybrid socket, for clients on the host: speaks `proto/vsh.proto` and runs real processes,
//! only here and not in a VM.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};
use wire::proto::vsh_reply::Reply;
use wire::proto::vsh_request::Request;
use wire::proto::{VshExit, VshReply, VshRequest, VshSetup, VshStarted, VshWindow};
use wire::{Fault, Kind, vsh};

/// The only container that there is.
pub const CONTAINER: &str = "penguin";

/// Where commands are looked for.
const PATH: &str = "/usr/bin:/bin";

/// What vshd was asked.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// How sessions were set up, in order.
    pub setups: Vec<VshSetup>,
    /// Signals that were passed on, in order.
    pub signals: Vec<u32>,
}

/// A running vshd; it serves until the test ends.
#[derive(Debug, Clone)]
pub struct Vshd {
    socket: PathBuf,
    seen: Arc<Mutex<Seen>>,
    connections: Arc<Mutex<Vec<UnixStream>>>,
}

impl Vshd {
    /// Listens as the hybrid socket at `socket`.
    ///
    /// # Errors
    /// When the folder is not writable.
    pub fn start(socket: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let vshd = Self {
            socket: socket.to_owned(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let seen = Arc::clone(&vshd.seen);
        let connections = Arc::clone(&vshd.connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&seen);
                lock(&connections).extend(stream.try_clone());
                // A client that hangs up early is that client's business.
                std::thread::spawn(move || serve(stream, &seen).ok());
            }
        });
        Ok(vshd)
    }

    /// Returns where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends every connection at once, as a VM does whose power is cut.
    pub fn hang_up(&self) {
        for connection in lock(&self.connections).drain(..) {
            // One that its client has ended is ended.
            connection.shutdown(Shutdown::Both).ok();
        }
    }

    /// Returns what it was asked so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

/// The process and our ends of its streams.
struct Process {
    child: Child,
    group: Pid,
    terminal: Option<File>,
    stdin: Option<Box<dyn Write + Send>>,
    outputs: Vec<Output>,
}

struct Output {
    reader: Box<dyn Read + Send>,
    reply: fn(Vec<u8>) -> Reply,
}

fn serve(mut stream: UnixStream, seen: &Mutex<Seen>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if line != format!("CONNECT {}\n", wire::ports::VSHD) {
        return Ok(());
    }
    stream.write_all(b"OK 1024\n")?;
    let Some(Request::Setup(setup)) = receive(&mut reader)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    lock(seen).setups.push(setup.clone());
    let to_client = Arc::new(Mutex::new(stream));
    let mut process = match start(&setup) {
        Ok(process) => process,
        Err(fault) => return send(&to_client, Reply::Failed(fault.into())),
    };
    send(
        &to_client,
        Reply::Started(VshStarted {
            pid: process.child.id(),
        }),
    )?;
    let outputs: Vec<_> = process
        .outputs
        .drain(..)
        .map(|out| pump(out, &to_client))
        .collect();
    let group = process.group;
    let (terminal, stdin) = (process.terminal.take(), process.stdin.take());
    let seen_signal = |signal| lock(seen).signals.push(signal);
    let child = process.child;
    let ender = std::thread::spawn(move || end(child, outputs, &to_client));
    listen(&mut reader, (terminal, stdin, group), seen_signal)?;
    // The client is gone: what runs is hung up, as when a terminal goes away.
    kill_process_group(group, Signal::HUP).ok();
    ender.join().expect("the thread does not panic")
}

/// Passes on what the client sends until it hangs up.
fn listen(
    reader: &mut BufReader<UnixStream>,
    (terminal, mut stdin, group): (Option<File>, Option<Box<dyn Write + Send>>, Pid),
    seen_signal: impl Fn(u32),
) -> io::Result<()> {
    while let Some(request) = receive(reader)? {
        match (request, &terminal) {
            (Request::Stdin(bytes), None) if bytes.is_empty() => stdin = None,
            (Request::Stdin(bytes), _) => {
                let bytes = if bytes.is_empty() { vec![4] } else { bytes };
                // A process that no longer reads its input need not be told.
                stdin
                    .as_mut()
                    .and_then(|stdin| stdin.write_all(&bytes).ok());
            }
            (Request::Window(window), Some(terminal)) => tcsetwinsize(terminal, size(window))?,
            (Request::Signal(number), terminal) => {
                seen_signal(number);
                let signal = Signal::from_named_raw(number.cast_signed());
                let foreground = terminal
                    .as_ref()
                    .and_then(|terminal| tcgetpgrp(terminal).ok());
                if let Some(signal) = signal {
                    kill_process_group(foreground.unwrap_or(group), signal).ok();
                }
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    Ok(())
}

fn end(
    mut child: Child,
    outputs: Vec<JoinHandle<()>>,
    to_client: &Mutex<UnixStream>,
) -> io::Result<()> {
    let status = child.wait()?;
    for output in outputs {
        output.join().expect("the thread does not panic");
    }
    let signal = status.signal().unwrap_or(0).cast_unsigned();
    let code = status.code().map_or(128 + signal, i32::cast_unsigned);
    send(to_client, Reply::Exit(VshExit { code, signal }))
}

fn pump(output: Output, to_client: &Arc<Mutex<UnixStream>>) -> JoinHandle<()> {
    let to_client = Arc::clone(to_client);
    let Output { mut reader, reply } = output;
    std::thread::spawn(move || {
        let mut buffer = vec![0; vsh::DATA_MAX];
        // A terminal whose last process has ended reads as an error.
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            if send(&to_client, reply(buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    })
}

fn start(setup: &VshSetup) -> Result<Process, Fault> {
    if !setup.container.is_empty() && setup.container != CONTAINER {
        let message = format!("there is no container {}", setup.container);
        return Err(Fault::new(Kind::NotFound, "E-CONTAINER-MISSING", message));
    }
    let shell = [String::from("/bin/sh")];
    let argv = if setup.argv.is_empty() {
        &shell[..]
    } else {
        &setup.argv
    };
    let program = find(&argv[0])?;
    let started = match setup.window {
        Some(window) => on_terminal(&program, &argv[1..], setup, window),
        None => on_pipes(&program, &argv[1..], setup),
    };
    started.map_err(|error| Fault::internal(&error))
}

/// Finds the program as a shell would, with its two ways to fail.
fn find(name: &str) -> Result<PathBuf, Fault> {
    let candidates: Vec<_> = if name.contains('/') {
        vec![PathBuf::from(name)]
    } else {
        PATH.split(':')
            .map(|folder| Path::new(folder).join(name))
            .collect()
    };
    let Some(found) = candidates.into_iter().find(|path| path.exists()) else {
        let message = format!("{name} was not found");
        return Err(Fault::new(Kind::NotFound, vsh::COMMAND_NOT_FOUND, message));
    };
    let executable = rustix::fs::access(&found, rustix::fs::Access::EXEC_OK).is_ok();
    if !executable || found.is_dir() {
        let message = format!("{name} cannot be executed");
        return Err(Fault::new(Kind::Denied, vsh::COMMAND_DENIED, message));
    }
    Ok(found)
}

fn prepare(mut command: Command, setup: &VshSetup) -> Command {
    command
        .env_clear()
        .env("PATH", PATH)
        .envs(&setup.locale)
        .envs(&setup.environment);
    if !setup.directory.is_empty() {
        command.current_dir(&setup.directory);
    }
    command
}

fn on_pipes(program: &Path, arguments: &[String], setup: &VshSetup) -> io::Result<Process> {
    let mut command = prepare(Command::new(program), setup);
    command.args(arguments).process_group(0);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let outputs = vec![
        Output {
            reader: Box::new(child.stdout.take().expect("it is piped")),
            reply: Reply::Stdout,
        },
        Output {
            reader: Box::new(child.stderr.take().expect("it is piped")),
            reply: Reply::Stderr,
        },
    ];
    let stdin = child.stdin.take().expect("it is piped");
    Ok(Process {
        group: group(&child),
        child,
        terminal: None,
        stdin: Some(Box::new(stdin)),
        outputs,
    })
}

fn on_terminal(
    program: &Path,
    arguments: &[String],
    setup: &VshSetup,
    window: VshWindow,
) -> io::Result<Process> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    tcsetwinsize(&master, size(window))?;
    let name = ptsname(&master, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave: OwnedFd = rustix::fs::open(name, flags, Mode::empty())?;
    let mut command = prepare(Command::new("setsid"), setup);
    command.arg("--ctty").arg(program).args(arguments);
    command
        .stdin(slave.try_clone()?)
        .stdout(slave.try_clone()?)
        .stderr(slave);
    let child = command.spawn()?;
    // The command holds the slave's descriptors; the terminal hangs up only when they are closed.
    drop(command);
    let master = File::from(master);
    let output = Output {
        reader: Box::new(master.try_clone()?),
        reply: Reply::Stdout,
    };
    let stdin = master.try_clone()?;
    Ok(Process {
        group: group(&child),
        child,
        terminal: Some(master),
        stdin: Some(Box::new(stdin)),
        outputs: vec![output],
    })
}

fn group(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn size(window: VshWindow) -> Winsize {
    let side = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    Winsize {
        ws_row: side(window.rows),
        ws_col: side(window.columns),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Returns the next request; nothing at the end.
fn receive(reader: &mut impl Read) -> io::Result<Option<Request>> {
    let mut frame = vec![0; 4];
    match reader.read_exact(&mut frame) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        read => read?,
    }
    let length = u32::from_le_bytes(frame[..4].try_into().expect("four bytes")) as usize;
    frame.resize(4 + length.min(vsh::FRAME_MAX), 0);
    reader.read_exact(&mut frame[4..])?;
    let request = vsh::decode::<VshRequest>(&mut frame).map_err(io::Error::other)?;
    Ok(request.and_then(|request| request.request))
}

fn send(to_client: &Mutex<UnixStream>, reply: Reply) -> io::Result<()> {
    let mut frame = Vec::new();
    vsh::encode(&VshReply { reply: Some(reply) }, &mut frame);
    lock(to_client).write_all(&frame)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
