//! Carries bytes between the host and a command until the command ends or the host hangs up.
//!
//! Nothing is interpreted and nothing waits: whoever is slow fills a bounded buffer, and then the other side is
//! not read until there is room again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, waitpid};
use rustix::termios::{SpecialCodeIndex, tcgetattr, tcgetpgrp};
use wire::proto::VshExit;
use wire::proto::vsh_reply::Reply;
use wire::proto::vsh_request::Request;
use wire::vsh::DATA_MAX;

use super::client::Client;
use super::launch::{Running, Streams};
use super::terminal;

/// Input that waits for the command; the host is not read while there is more.
const INPUT_MAX: usize = 256 << 10;

/// Reads of what an ended command has left: as many as empty the largest pipe that a user can make
/// (fs.pipe-max-size, 1 MiB). Its children may go on writing for ever.
const LEFT_MAX: usize = (1 << 20) / DATA_MAX;

const SIGHUP: i32 = 1;
const SIGNAL_MAX: u32 = 64;

/// What is ready after a wait.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the answers of one poll, no state"
)]
struct Ready {
    client_in: bool,
    client_out: bool,
    command_in: bool,
    outputs: [bool; 2],
    ended: bool,
}

/// Input on its way to the command.
#[derive(Debug, Default)]
struct Input {
    waiting: Vec<u8>,
    /// The host has sent its last.
    ended: bool,
}

/// Runs until the command has ended and the host has its exit, or the host has hung up.
pub(super) fn run(client: &mut Client, running: &mut Running) -> io::Result<()> {
    let mut input = Input::default();
    let carried = carry(client, running, &mut input);
    if !matches!(carried, Ok(true)) {
        hang_up(running);
        return carried.map(drop);
    }
    for output in [0, 1] {
        // What it wrote before it ended is there already; what others write later belongs to nobody.
        for _ in 0..LEFT_MAX {
            if !drain(client, &mut running.streams, output)? {
                break;
            }
            client.flush()?;
        }
    }
    client.queue(Reply::Exit(exit(running)?));
    client.flush()
}

/// Carries until one side is done: `true` when that is the command.
fn carry(client: &mut Client, running: &mut Running, input: &mut Input) -> io::Result<bool> {
    loop {
        let ready = wait(client, running, input)?;
        if ready.client_out {
            client.send()?;
        }
        if ready.client_in && !client.fill()? {
            return Ok(false);
        }
        while let Some(request) = client.next()? {
            obey(running, input, request);
        }
        if ready.command_in || !input.waiting.is_empty() || input.ended {
            feed(&mut running.streams, input);
        }
        for (output, ready) in ready.outputs.into_iter().enumerate() {
            if ready {
                drain(client, &mut running.streams, output)?;
            }
        }
        if ready.ended {
            return Ok(true);
        }
    }
}

fn wait(client: &Client, running: &Running, input: &Input) -> io::Result<Ready> {
    let mut wanted = PollFlags::empty();
    wanted.set(PollFlags::IN, input.waiting.len() < INPUT_MAX);
    wanted.set(PollFlags::OUT, client.is_pending());
    let room = client.has_room();
    let mut outputs_flags = PollFlags::empty();
    outputs_flags.set(PollFlags::IN, room);
    let mut input_flags = PollFlags::empty();
    input_flags.set(PollFlags::OUT, !input.waiting.is_empty());
    let mut fds = vec![
        PollFd::new(client, wanted),
        PollFd::new(&running.pidfd, PollFlags::IN),
    ];
    let mut places = [None; 3];
    match &running.streams {
        Streams::Terminal(master) if !(outputs_flags | input_flags).is_empty() => {
            places = [Some(2), Some(2), None];
            fds.push(PollFd::new(master, outputs_flags | input_flags));
        }
        Streams::Terminal(_) => {}
        Streams::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            let streams = [
                (stdin, input_flags),
                (stdout, outputs_flags),
                (stderr, outputs_flags),
            ];
            for (place, (fd, flags)) in places.iter_mut().zip(streams) {
                // A pipe with nothing wanted of it would still report its other end's closing for ever.
                if let Some(fd) = fd.as_ref().filter(|_| !flags.is_empty()) {
                    *place = Some(fds.len());
                    fds.push(PollFd::new(fd, flags));
                }
            }
        }
    }
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
    let at = |place: Option<usize>| place.map_or(PollFlags::empty(), |place| events[place]);
    let gone = PollFlags::HUP | PollFlags::ERR;
    Ok(Ready {
        client_in: events[0].intersects(PollFlags::IN | gone),
        client_out: events[0].contains(PollFlags::OUT),
        command_in: at(places[0]).intersects(PollFlags::OUT | PollFlags::ERR),
        outputs: [1, 2].map(|n| room && at(places[n]).intersects(PollFlags::IN | gone)),
        ended: events[1].contains(PollFlags::IN),
    })
}

/// Does what the host asks; what makes no sense now is passed over.
fn obey(running: &Running, input: &mut Input, request: Request) {
    let done = match request {
        Request::Stdin(bytes) if bytes.is_empty() => {
            input.ended = true;
            Ok(())
        }
        Request::Stdin(bytes) => {
            input.waiting.extend(bytes);
            Ok(())
        }
        Request::Window(window) => match &running.streams {
            Streams::Terminal(master) => terminal::resize(master, window),
            Streams::Pipes { .. } => Ok(()),
        },
        Request::Signal(number @ 1..=SIGNAL_MAX) => {
            signal(running, i32::try_from(number).expect("at most 64"))
        }
        Request::Signal(_) | Request::Setup(_) => Err(io::ErrorKind::InvalidInput.into()),
    };
    if let Err(error) = done {
        tracing::debug!("request passed over: {error}");
    }
}

/// Signals the terminal's foreground processes; without a terminal, the command's group.
fn signal(running: &Running, number: i32) -> io::Result<()> {
    let group = match &running.streams {
        Streams::Terminal(master) => tcgetpgrp(master)?,
        Streams::Pipes { .. } => running.pid,
    };
    sys::process::signal_group(group, number)
}

/// Gives the command what it takes now of its input.
fn feed(streams: &mut Streams, input: &mut Input) {
    match streams {
        Streams::Terminal(master) => {
            if std::mem::take(&mut input.ended) {
                input.waiting.push(end_of_file(master));
            }
            push(master, &mut input.waiting);
        }
        Streams::Pipes { stdin, .. } => {
            let open = stdin
                .as_ref()
                .is_some_and(|pipe| push(pipe, &mut input.waiting));
            if !open || input.ended && input.waiting.is_empty() {
                *stdin = None;
                input.waiting.clear();
            }
        }
    }
}

/// The character that means end of file on this terminal; Ctrl-D unless the command changed it.
fn end_of_file(master: &OwnedFd) -> u8 {
    tcgetattr(master).map_or(4, |settings| settings.special_codes[SpecialCodeIndex::VEOF])
}

/// Writes what fits; `false` when nobody will ever read it.
fn push(fd: &OwnedFd, waiting: &mut Vec<u8>) -> bool {
    let mut written = 0;
    let open = loop {
        if written == waiting.len() {
            break true;
        }
        match rustix::io::write(fd, &waiting[written..]) {
            Ok(n) => written += n,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break true,
            Err(_) => break false,
        }
    };
    waiting.drain(..written);
    open
}

/// Puts what the command has written in line for the host; `false` when there is nothing more for now.
fn drain(client: &mut Client, streams: &mut Streams, output: usize) -> io::Result<bool> {
    let (read, bytes) = match streams {
        Streams::Terminal(master) if output == 0 => take(master),
        Streams::Pipes {
            stdout: Some(pipe), ..
        } if output == 0 => take(pipe),
        Streams::Pipes {
            stderr: Some(pipe), ..
        } if output == 1 => take(pipe),
        _ => return Ok(false),
    };
    match (read, &mut *streams) {
        (Ok(0), Streams::Pipes { stdout, .. }) if output == 0 => *stdout = None,
        (Ok(0), Streams::Pipes { stderr, .. }) => *stderr = None,
        (Ok(0) | Err(Errno::AGAIN), _) => {}
        (Ok(_), _) if output == 0 => {
            client.queue(Reply::Stdout(bytes));
            return Ok(true);
        }
        (Ok(_), _) => {
            client.queue(Reply::Stderr(bytes));
            return Ok(true);
        }
        (Err(Errno::INTR), _) => return Ok(true),
        // Nobody has the terminal open any more; the command's end follows, or it took another one.
        (Err(Errno::IO), _) => std::thread::sleep(CLOSED_PAUSE),
        (Err(error), _) => return Err(error.into()),
    }
    Ok(false)
}

/// A terminal that nobody has open reports that without end; a program may open it again.
const CLOSED_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

fn take(fd: impl AsFd) -> (rustix::io::Result<usize>, Vec<u8>) {
    let mut bytes = vec![0; DATA_MAX];
    let read = rustix::io::read(fd, &mut bytes);
    bytes.truncate(*read.as_ref().unwrap_or(&0));
    (read, bytes)
}

/// Waits for the ended command.
fn exit(running: &Running) -> io::Result<VshExit> {
    let status = waitpid(Some(running.pid), WaitOptions::empty())?.map(|(_, status)| status);
    let signal = status.and_then(rustix::process::WaitStatus::terminating_signal);
    let code = status.and_then(rustix::process::WaitStatus::exit_status);
    let signal = signal.map_or(0, i32::unsigned_abs);
    Ok(VshExit {
        code: code.map_or(128 + signal, i32::unsigned_abs),
        signal,
    })
}

/// The host is gone: tells the command as a terminal would. Closing the terminal reaches the others on it.
fn hang_up(running: &Running) {
    let _ = signal(running, SIGHUP);
}
