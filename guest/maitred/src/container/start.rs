//! Starts a container; done as soon as its PID 1 runs.

use std::process::Stdio;
use std::time::Duration;

use wire::{ContainerName, Fault, Kind};

use super::config::Config;
use super::recipe::{self, Init};
use super::rootfs::Rootfs;
use super::{Containers, Home, Live};
use crate::agent::Agent;
use crate::fault::OrFault;
use crate::{log, program};

/// LXC needs well under a second; one that has not come back after this will not.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Lines of LXC's log in which the first error is looked for.
const LOG_LINES: usize = 200;

impl Containers {
    /// Starts the container. One that runs already is left alone.
    pub(crate) async fn start(&self, name: &ContainerName) -> Result<(), Fault> {
        let (_turn, home) = self.existing(name).await?;
        if Live::find(&home).is_some() {
            return Ok(());
        }
        let config = Config::load(home.path())?;
        let message = || format!("cannot start container {name}");
        recipe::prepare().or_fault("E-CONTAINER-START", message)?;
        let rootfs = Rootfs::open(&home.rootfs()).or_fault("E-CONTAINER-BROKEN", message)?;
        let text = recipe::write(&home, &config, Init::of(&rootfs));
        std::fs::write(home.recipe(), text).or_fault("E-CONTAINER-START", message)?;
        let _ = std::fs::remove_file(home.log());
        launch(&home).await
    }

    /// Starts the containers that are marked for it, once in each boot of the VM.
    pub(crate) fn start_marked(&self, agent: &std::sync::Arc<Agent>) {
        const DONE: &str = "/run/testudo/containers-started";
        if std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(DONE)
            .is_err()
        {
            return;
        }
        for (name, config) in self.all() {
            if config.is_ok_and(|config| config.start_on_boot) {
                let agent = std::sync::Arc::clone(agent);
                tokio::spawn(async move {
                    if let Err(fault) = agent.containers.start(&name).await {
                        tracing::error!(causes = ?fault.parts().causes, "{fault}");
                    }
                });
            }
        }
    }
}

/// Runs `lxc-start`, which returns when the container's PID 1 has been started and goes on as its monitor.
async fn launch(home: &Home) -> Result<(), Fault> {
    let message = || format!("cannot start container {}", home.name);
    let start = program("lxc-start")
        .args([
            "--name",
            home.name.as_str(),
            "--daemon",
            "--logpriority",
            "WARN",
        ])
        .arg("--rcfile")
        .arg(home.recipe())
        .arg("--pidfile")
        .arg(home.pid_file())
        .arg("--logfile")
        .arg(home.log())
        .arg("--lxcpath")
        .arg(super::home::RUN)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(false)
        .status();
    let status = tokio::time::timeout(START_TIMEOUT, start).await;
    let cause = match status {
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => format!("lxc-start ended with {status}"),
        Ok(Err(error)) => format!("lxc-start: {error}"),
        Err(_) => format!(
            "lxc-start did not come back in {} s",
            START_TIMEOUT.as_secs()
        ),
    };
    let lines = log::tail(&home.log(), LOG_LINES);
    let cause = first_error(&lines).unwrap_or(cause);
    Err(Fault::new(Kind::Internal, "E-CONTAINER-START", message())
        .cause(cause)
        .hint(format!(
            "all that LXC said is in the VM, in {}",
            home.log().display()
        )))
}

/// Returns what LXC's first error says, for the others follow from it. LXC writes `NAME TIME LEVEL PART - FILE:LINE -
/// TEXT`, and the kernel's answer in front of a text that has one.
fn first_error(lines: &[String]) -> Option<String> {
    let (_, error) = lines.iter().find_map(|line| line.split_once(" ERROR "))?;
    let text = error.splitn(3, " - ").nth(2)?;
    Some(match text.split_once(" - ") {
        Some((answer, act)) => format!("{act}: {answer}"),
        None => text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_of_lxc_is_the_cause() {
        let lines = [
            "lxc-start x 2026 WARN     conf - ../src/lxc/conf.c:f:1 - Odd",
            "lxc-start x 2026 ERROR    utils - ../src/lxc/utils.c:safe_mount:1334 - Not a directory - Failed to mount \"proc\"",
            "lxc-start x 2026 ERROR    conf - ../src/lxc/conf.c:g:3 - Failed to setup",
        ]
        .map(str::to_owned);
        let said = first_error(&lines);
        assert_eq!(
            said.as_deref(),
            Some("Failed to mount \"proc\": Not a directory")
        );
        assert_eq!(first_error(&lines[2..]).as_deref(), Some("Failed to setup"));
        assert_eq!(first_error(&lines[..1]), None);
    }
}
