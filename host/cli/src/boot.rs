//! From nothing to a running container: each step is skipped when its result is already there.

use wire::proto::{StartContainer, StartVm};
use wire::{ContainerName, Fault, Kind, VmName};

use crate::client::Client;
use crate::create::{self, Source};
use crate::desktop;
use crate::options::SessionOptions;
use crate::session::{Place, Session};
use crate::ui::{Stages, Ui};

/// Whether what does not exist is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is made.
    Create,
    /// It is an error.
    Refuse,
}

/// Starts the VM; a running one is success at once. Its windows go to the desktop that the command was typed on; where they
/// can't, it still starts.
pub(crate) async fn vm(
    client: &Client,
    vm: &VmName,
    missing: Missing,
    stages: &mut Stages<'_>,
) -> Result<(), Fault> {
    let start = StartVm {
        vm: vm.to_string(),
        create: missing == Missing::Create,
        ..StartVm::default()
    };
    vm_as(client, vm, start, stages).await
}

/// Starts the VM as `start` says; a running VM is success at once, whatever runs it.
pub(crate) async fn vm_as(
    client: &Client,
    vm: &VmName,
    start: StartVm,
    stages: &mut Stages<'_>,
) -> Result<(), Fault> {
    stages.under_way(format!("{vm} goes on starting; to stop it: vmc stop {vm}"));
    if let Err(fault) = stages.follow(client.vms().start(start)).await {
        return Err(client.known_vms(fault, vm).await);
    }
    if let Err(fault) = desktop::offer(client, vm).await {
        let causes = &fault.parts().causes;
        stages.note(&format!("no windows: {fault}: {}", causes.join(": ")));
    }
    stages.under_way("");
    Ok(())
}

/// Starts the container in the running VM; a running one is success at once.
pub(crate) async fn container(
    client: &Client,
    vm: &VmName,
    container: &ContainerName,
    missing: Missing,
    stages: &mut Stages<'_>,
) -> Result<(), Fault> {
    match start(client, vm, container, stages).await {
        Err(fault) if fault.kind() == Kind::NotFound && missing == Missing::Create => {
            let base = Source::base();
            create::container(client, vm, create::header(container, &base), base, stages).await?;
            start(client, vm, container, stages).await
        }
        Err(fault) => Err(client.known_containers(fault, vm, container).await),
        started => started,
    }
}

/// Starts whatever `place` needs and then `command` in it.
pub(crate) async fn session(
    ui: &Ui,
    client: &Client,
    place: Place,
    missing: Missing,
    (options, command): (&SessionOptions, Vec<String>),
) -> Result<Session, Fault> {
    let mut stages = Stages::new(ui);
    vm(client, &place.vm, missing, &mut stages).await?;
    if let Some(name) = &place.container {
        container(client, &place.vm, name, missing, &mut stages).await?;
    }
    stages.under_way(stays(&place));
    let session = stages
        .stage("shell", Session::open(client, &place, options, command))
        .await?;
    stages.finish("ready");
    Ok(session)
}

/// Says what stays when nobody waits for the shell: its command is hung up.
pub(crate) fn stays(Place { vm, container }: &Place) -> String {
    match container {
        Some(name) => format!("{name} runs on; to stop it: testudo stop {name}"),
        None => format!("{vm} runs on; to stop it: vmc stop {vm}"),
    }
}

async fn start(
    client: &Client,
    vm: &VmName,
    container: &ContainerName,
    stages: &mut Stages<'_>,
) -> Result<(), Fault> {
    let start = StartContainer {
        container: container.to_string(),
    };
    stages.under_way(format!(
        "{container} goes on starting; to stop it: testudo stop {container}"
    ));
    stages.follow(client.containers(vm).start(start)).await
}
