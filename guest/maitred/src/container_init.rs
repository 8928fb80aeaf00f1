//! PID 1 of a container whose image brings no init: reaps, and ends the container when it is asked to.

use std::process::ExitCode;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};
use tokio::signal::unix::{SignalKind, signal};

/// What the container runs has this long to end after it was asked.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often is looked whether all have ended.
const LOOK: Duration = Duration::from_millis(20);

/// Runs until the container is told to stop.
pub(crate) fn run() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(serve())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn serve() -> std::io::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let mut children = signal(SignalKind::child())?;
    loop {
        tokio::select! {
            _ = children.recv() => drop(reap()),
            _ = stop.recv() => break,
        }
    }
    // Process group 1 in kill(2) means everyone but PID 1 itself.
    let _ = kill_process_group(Pid::INIT, Signal::TERM);
    let _ = tokio::time::timeout(FAREWELL, async {
        while reap() != Err(Errno::CHILD) {
            tokio::time::sleep(LOOK).await;
        }
    })
    .await;
    Ok(())
}

/// Takes in every child that has ended; `CHILD` when there is none left.
fn reap() -> Result<(), Errno> {
    while wait(WaitOptions::NOHANG)?.is_some() {}
    Ok(())
}
