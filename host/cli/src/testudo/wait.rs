//! `testudo wait`: until a VM or container is as far as a script needs it.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use wire::proto::{ContainerRef, VmState};
use wire::{ContainerName, Fault, Kind, VmName};

use super::Call;
use crate::client::{Client, answer};
use crate::options::SessionOptions;
use crate::session::{Place, Session};
use crate::{completion, options};

/// First pause between two looks; each next one is longer by half, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Wait until a container is ready; nothing is started
///
/// Exit status 6 when the time is over.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  testudo wait dev --for network --timeout 30")]
pub(super) struct Wait {
    /// The container (default: the default one)
    #[arg(value_parser = options::container, add = completion::containers())]
    name: Option<ContainerName>,
    /// What to wait for
    #[arg(long = "for", value_enum, default_value = "shell", value_name = "WHAT")]
    what: What,
    /// Seconds after which to give up
    #[arg(long, value_parser = options::seconds, default_value = "60", value_name = "SECONDS")]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The VM's agent answers
    Agent,
    /// The container has an address
    Network,
    /// A command can be run in the container
    Shell,
}

impl Wait {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let container = call.container(self.name)?;
        let client = call.client().await?;
        let begun = Instant::now();
        let mut last = None;
        let mut pause = PAUSE_MIN;
        let look = async {
            loop {
                match ready(&client, &vm, &container, self.what).await {
                    Ok(()) => return,
                    Err(not_yet) => last = Some(not_yet),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 3 / 2).min(PAUSE_MAX);
            }
        };
        if tokio::time::timeout(self.timeout, look).await.is_err() {
            let fault = Fault::new(
                Kind::Unreachable,
                "E-TIMEOUT",
                format!(
                    "{} is not ready after {} s",
                    container,
                    self.timeout.as_secs_f32()
                ),
            );
            return Err(last
                .into_iter()
                .fold(fault, |fault, last| fault.because(&last)));
        }
        if call.ui.json() {
            let waited_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            return call
                .ui
                .object("ready", &serde_json::json!({ "waited_ms": waited_ms }));
        }
        Ok(())
    }
}

async fn ready(
    client: &Client,
    vm: &VmName,
    container: &ContainerName,
    what: What,
) -> Result<(), Fault> {
    let not_yet = |why: String| Err(Fault::new(Kind::Busy, "E-NOT-RUNNING", why));
    let found = client.info(vm).await?;
    if what == What::Agent && found.figures.is_some() {
        return Ok(());
    }
    if found.state() != VmState::Running || found.figures.is_none() {
        return not_yet(format!("VM {vm} does not run"));
    }
    if what == What::Network {
        let named = ContainerRef {
            container: container.to_string(),
        };
        let addresses = answer(client.containers(vm).info(named)).await?.addresses;
        return if addresses.is_empty() {
            not_yet("it has no address".to_owned())
        } else {
            Ok(())
        };
    }
    let mut options = SessionOptions::plain();
    options.terminal.no_tty = true;
    let place = Place {
        vm: vm.clone(),
        container: Some(container.clone()),
    };
    let command = ["/bin/sh", "-c", ":"].map(str::to_owned).to_vec();
    Session::open(client, &place, &options, command)
        .await
        .map(drop)
}
