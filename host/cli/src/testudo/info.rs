//! `testudo info`: all that is known of one container.

use clap::Args;
use wire::proto::{Container, ContainerRef};
use wire::{Bytes, ContainerName, Fault, Kind};

use super::Call;
use crate::client::answer;
use crate::ui::date;
use crate::{completion, json, options};

/// Show all that is known of a container
#[derive(Debug, Args)]
pub(super) struct Info {
    /// The container (default: the default one)
    #[arg(value_parser = options::container, add = completion::containers())]
    name: Option<ContainerName>,
}

impl Info {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let name = call.container(self.name)?;
        let client = call.client().await?;
        client.info(&vm).await?;
        if !client.runs(&vm).await? {
            return Err(
                Fault::new(Kind::Busy, "E-NOT-RUNNING", format!("VM {vm} does not run"))
                    .cause("its containers lie on its disk")
                    .hint(format!(
                        "testudo start {name}; of the VM itself: vmc info {vm}"
                    )),
            );
        }
        let named = ContainerRef {
            container: name.to_string(),
        };
        let container = match answer(client.containers(&vm).info(named)).await {
            Err(fault) => return Err(client.known_containers(fault, &vm, &name).await),
            Ok(container) => container,
        };
        if call.ui.json() {
            return call
                .ui
                .object("container", &json::Container::of(vm.as_str(), &container));
        }
        call.ui.pairs(&pairs(vm.as_str(), &container))
    }
}

fn pairs(vm: &str, container: &Container) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("name", container.name.clone()),
        ("vm", vm.to_owned()),
        ("state", json::container_state(container.state()).to_owned()),
        ("system", container.distribution.clone()),
        ("user", container.user.clone()),
        ("created", date(container.created_s)),
        ("addresses", container.addresses.join(", ")),
        (
            "disk",
            format!("{} of its own", Bytes(container.disk_bytes)),
        ),
        ("snapshots", container.snapshots.to_string()),
    ];
    if container.memory_bytes > 0 {
        pairs.push(("memory", Bytes(container.memory_bytes).to_string()));
        pairs.push(("processes", container.processes.to_string()));
    }
    pairs
}
