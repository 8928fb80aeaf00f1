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
}

impl Forwarder {
    pub(super) fn new(writer: Arc<Writer>, tell: Sender<Outcome>, terminal: bool) -> Self {
        Self {
            writer,
            tell,
            terminal,
            count: 0,
        }
    }

    /// Passes signals on until the program ends.
    pub(super) fn run(mut self, runtime: &Runtime) {
        runtime.block_on(async {
            let [
                Ok(mut interrupt),
                Ok(mut quit),
                Ok(mut terminate),
                Ok(mut hang_up),
            ] = [
                signal(SignalKind::interrupt()),
                signal(SignalKind::quit()),
                signal(SignalKind::terminate()),
                signal(SignalKind::hangup()),
            ]
            else {
                // Without handlers the signals do what they do by default: end us, and vshd hangs up.
                return;
            };
            let mut window = signal(SignalKind::window_change()).ok();
            let mut go_on = signal(SignalKind::from_raw(Signal::CONT.as_raw())).ok();
            if self.terminal {
                self.window(false).await;
            }
            loop {
                tokio::select! {
                    _ = interrupt.recv() => self.pass(Signal::INT).await,
                    _ = quit.recv() => self.pass(Signal::QUIT).await,
                    _ = terminate.recv() => self.pass(Signal::TERM).await,
                    _ = hang_up.recv() => self.pass(Signal::HUP).await,
                    () = next(&mut window) => self.window(false).await,
                    () = next(&mut go_on) => self.window(true).await,
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

async fn next(stream: &mut Option<Stream>) {
    match stream {
        Some(stream) => drop(stream.recv().await),
        None => std::future::pending().await,
    }
}
