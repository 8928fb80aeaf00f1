//! Signals and window changes on their way to the process.
//!
//! Interrupt, quit, terminate and hang-up are passed on and the process decides. We end by ourselves when it
//! cannot: the third of them, one that vshd does not take within [`DELIVERY`], and, where we hold a terminal, a
//! hang-up or terminate that has not ended the process within [`GRACE`] (interactive shells ignore them).

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use wire::proto::vsh_request::Request;

use super::writer::Writer;
use super::{Outcome, terminal};

/// Longest time for a signal to be taken by vshd; a process that reads no more input holds up what is behind.
const DELIVERY: Duration = Duration::from_secs(1);
/// Time for a process to end after a signal that ends our terminal.
const GRACE: Duration = Duration::from_secs(2);
/// So many signals mean that the user wants to be rid of it (podman and docker agree).
const INSISTENCE: u32 = 3;

/// Passes signals on.
#[derive(Debug)]
pub(super) struct Forwarder {
    writer: Arc<Writer>,
    tell: Sender<Outcome>,
    terminal: bool,
    count: u32,
    heard: Heard,
}

/// The signals that are listened to.
#[derive(Debug)]
struct Heard {
    interrupt: Option<Stream>,
    quit: Option<Stream>,
    terminate: Option<Stream>,
    hang_up: Option<Stream>,
    window: Option<Stream>,
    go_on: Option<Stream>,
}

impl Forwarder {
    /// Listens from now on, within the runtime that is entered: the process's first output may be answered by a signal.
    pub(super) fn new(writer: Arc<Writer>, tell: Sender<Outcome>, terminal: bool) -> Self {
        let heard = Heard {
            interrupt: listen(SignalKind::interrupt()),
            quit: listen(SignalKind::quit()),
            terminate: listen(SignalKind::terminate()),
            hang_up: listen(SignalKind::hangup()),
            window: listen(SignalKind::window_change()),
            go_on: listen(SignalKind::from_raw(Signal::CONT.as_raw())),
        };
        Self {
            writer,
            tell,
            terminal,
            count: 0,
            heard,
        }
    }

    /// Passes signals on until the program ends.
    pub(super) fn run(mut self, runtime: &Runtime) {
        runtime.block_on(async {
            if self.terminal {
                self.window(false).await;
            }
            loop {
                tokio::select! {
                    () = next(&mut self.heard.interrupt) => self.pass(Signal::INT).await,
                    () = next(&mut self.heard.quit) => self.pass(Signal::QUIT).await,
                    () = next(&mut self.heard.terminate) => self.pass(Signal::TERM).await,
                    () = next(&mut self.heard.hang_up) => self.pass(Signal::HUP).await,
                    () = next(&mut self.heard.window) => self.window(false).await,
                    () = next(&mut self.heard.go_on) => self.window(true).await,
                }
            }
        });
    }

    async fn pass(&mut self, signal: Signal) {
        self.count += 1;
        let number = signal.as_raw();
        let ends_terminal = signal == Signal::HUP || (self.terminal && signal == Signal::TERM);
        let delivered = self.send(Request::Signal(number.cast_unsigned())).await;
        if !delivered || self.count >= INSISTENCE {
            self.tell.send(Outcome::Signalled(number)).ok();
        } else if ends_terminal {
            let tell = self.tell.clone();
            tokio::spawn(async move {
                tokio::time::sleep(GRACE).await;
                tell.send(Outcome::Signalled(number)).ok();
            });
        }
    }

    async fn window(&self, stopped_before: bool) {
        if !self.terminal {
            return;
        }
        if stopped_before {
            terminal::enter_again();
        }
        self.send(Request::Window(terminal::window())).await;
    }

    async fn send(&self, request: Request) -> bool {
        let writer = Arc::clone(&self.writer);
        let send = tokio::task::spawn_blocking(move || writer.send(request));
        matches!(tokio::time::timeout(DELIVERY, send).await, Ok(Ok(Ok(()))))
    }
}

/// Listens to a signal that is not ignored: whoever started us with `nohup`, or in a script's background, wants it to
/// stay so. One that cannot be listened to does what it does by default: it ends us, and vshd hangs up.
pub(crate) fn listen(kind: SignalKind) -> Option<Stream> {
    if sys::process::ignores(kind.as_raw_value()) {
        return None;
    }
    signal(kind).ok()
}

/// Waits for the next signal of `stream`; for ever where none is listened to.
pub(crate) async fn next(stream: &mut Option<Stream>) {
    match stream {
        Some(stream) => drop(stream.recv().await),
        None => std::future::pending().await,
    }
}
