//! How a call ends: its future is run until it is done or the user interrupts it, a session takes over the
//! terminal, and the outcome becomes the exit status that docs/errors.md promises.

use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::SignalKind;
use wire::{Fault, Kind, vsh};

use crate::crosh::Prompt;
use crate::invocation::{Contract, Invocation};
use crate::session::Session;
use crate::session::signals::{listen, next};
use crate::ui::Ui;

/// Our failure where the status is otherwise a command's (the contract of podman and docker).
pub(crate) const SESSION_FAILED: u8 = 125;
/// The command was found but cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
const COMMAND_NOT_FOUND: u8 = 127;
/// A wrong command line, as clap and most programs have it.
pub(crate) const USAGE: u8 = 2;
/// What a process that died of SIGPIPE shows: the reader of our output went away.
const BROKEN_PIPE: u8 = 128 + 13;

/// Code of the fault that stands for a reader of our output that went away; nothing is printed for it.
pub(crate) const PIPE_CODE: &str = "E-PIPE";
/// What is left to do when a command has been carried out.
pub(crate) enum End {
    /// Nothing.
    Done,
    /// Exit with this status; everything has been said.
    Status(u8),
    /// Prompt for commands.
    Prompt(Prompt),
    /// A process in the guest runs: join it to this terminal and exit with its status.
    Session(Box<Session>),
}

/// Runs the call to its end.
pub(crate) fn run(invocation: Invocation) -> ExitCode {
    let ui = invocation.ui();
    let contract = invocation.contract();
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let fault = Fault::new(Kind::Exhausted, "E-LIMIT", "cannot start").because(&error);
            ui.fault(&fault);
            return code(&fault, contract).into();
        }
    };
    let end = runtime.block_on(async {
        tokio::select! {
            end = invocation.run(&ui) => end,
            status = interrupted() => {
                ui.interrupted();
                Ok(End::Status(status))
            }
        }
    });
    match finish(end, runtime, &ui) {
        Ok(status) => status.into(),
        Err(fault) => {
            if fault.parts().code != PIPE_CODE {
                ui.fault(&fault);
            }
            code(&fault, contract).into()
        }
    }
}

fn finish(end: Result<End, Fault>, runtime: Runtime, ui: &Ui) -> Result<u8, Fault> {
    let status = match end {
        Ok(End::Prompt(prompt)) => return prompt.run(&runtime, ui),
        Ok(End::Session(session)) => return session.run(runtime, ui),
        Ok(End::Done) => Ok(0),
        Ok(End::Status(status)) => Ok(status),
        Err(fault) => Err(fault),
    };
    // Somebody may still be reading from a stdin that never ends; nobody waits for that.
    runtime.shutdown_background();
    status
}

/// Waits for a signal that asks the call to end and returns the status that it is to end with. Dropping the
/// call's future then removes what it had half made.
async fn interrupted() -> u8 {
    let mut interrupt = listen(SignalKind::interrupt());
    let mut terminate = listen(SignalKind::terminate());
    let mut hang_up = listen(SignalKind::hangup());
    tokio::select! {
        () = next(&mut interrupt) => 128 + 2,
        () = next(&mut terminate) => 128 + 15,
        () = next(&mut hang_up) => 128 + 1,
    }
}

/// Returns the exit status that stands for `fault`.
pub(crate) fn code(fault: &Fault, contract: Contract) -> u8 {
    match (contract, fault.parts().code.as_str()) {
        (_, PIPE_CODE) => BROKEN_PIPE,
        (Contract::Session, vsh::COMMAND_NOT_FOUND) => COMMAND_NOT_FOUND,
        (Contract::Session, vsh::COMMAND_DENIED) => NOT_EXECUTABLE,
        (Contract::Session, _) => SESSION_FAILED,
        (Contract::Verb, _) => match fault.kind() {
            Kind::Internal | Kind::Invalid => 1,
            Kind::NotFound => 3,
            Kind::Exists => 4,
            Kind::Busy => 5,
            Kind::Unreachable => 6,
            Kind::Denied => 7,
            Kind::Exhausted => 8,
        },
    }
}
