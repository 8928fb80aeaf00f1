//! The daemon as the commands see it: typed clients for its services, each call with a deadline and its failure
//! a [`Fault`].

use std::time::Duration;

use link::places::Places;
use link::request::Tag;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Response, Status};
use wire::proto::containers_client::ContainersClient;
use wire::proto::daemon_client::DaemonClient;
use wire::proto::vms_client::VmsClient;
use wire::proto::{ContainerRef, Empty, VersionReply, Vm, VmRef, VmState};
use wire::{ContainerName, Fault, Kind, SnapshotName, VmName};

use crate::suggest;

/// Longest time for a call that answers once: stopping a container politely and deleting it is the longest.
const CALL_DEADLINE: Duration = Duration::from_secs(90);

/// A client of one service; every call carries the same request id.
pub(crate) type Tagged = InterceptedService<Channel, Tag>;

/// A connection to the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
    version: VersionReply,
    tag: Tag,
}

impl Client {
    /// Connects to the daemon, starting it when it does not run.
    pub(crate) async fn connect_or_start(places: &Places) -> Result<Self, Fault> {
        let (channel, version) = link::daemon::connect_or_start(places).await?;
        Ok(Self {
            channel,
            version,
            tag: Tag::new(),
        })
    }

    /// Connects to the daemon if it runs.
    pub(crate) async fn connect(places: &Places) -> Result<Option<Self>, Fault> {
        let found = link::daemon::connect(places).await?;
        Ok(found.map(|(channel, version)| Self {
            channel,
            version,
            tag: Tag::new(),
        }))
    }

    /// Returns what the daemon said of itself.
    pub(crate) fn version(&self) -> &VersionReply {
        &self.version
    }

    /// Returns the VM verbs.
    pub(crate) fn vms(&self) -> VmsClient<Tagged> {
        VmsClient::with_interceptor(self.channel.clone(), self.tag.clone())
    }

    /// Returns the daemon's own verbs.
    pub(crate) fn daemon(&self) -> DaemonClient<Tagged> {
        DaemonClient::with_interceptor(self.channel.clone(), self.tag.clone())
    }

    /// Returns the container verbs of one VM.
    pub(crate) fn containers(&self, vm: &VmName) -> ContainersClient<Tagged> {
        ContainersClient::with_interceptor(self.channel.clone(), self.tag.clone().vm(vm))
    }

    /// Returns all VMs.
    pub(crate) async fn list(&self) -> Result<Vec<Vm>, Fault> {
        Ok(answer(self.vms().list(Empty {})).await?.vms)
    }

    /// Returns one VM, or a fault that names the nearest one.
    pub(crate) async fn info(&self, vm: &VmName) -> Result<Vm, Fault> {
        match answer(self.vms().info(VmRef { vm: vm.to_string() })).await {
            Err(fault) => Err(self.known_vms(fault, vm).await),
            found => found,
        }
    }

    /// Returns whether `vm` runs; one that does not exist does not.
    pub(crate) async fn runs(&self, vm: &VmName) -> Result<bool, Fault> {
        let vms = self.list().await?;
        Ok(vms
            .iter()
            .any(|found| found.name == vm.as_str() && found.state() == VmState::Running))
    }

    /// Adds the nearest VM to a fault, if it is because there is no `vm`.
    pub(crate) async fn known_vms(&self, fault: Fault, vm: &VmName) -> Fault {
        if fault.kind() != Kind::NotFound {
            return fault;
        }
        let vms = self.list().await.unwrap_or_default();
        if vms.is_empty() {
            return fault.hint(format!(
                "testudo makes a VM and a container; vmc create {vm} makes only the VM"
            ));
        }
        let names: Vec<_> = vms.iter().map(|vm| vm.name.as_str()).collect();
        with_nearest(fault, vm.as_str(), &names, "see vmc list")
    }

    /// Adds the nearest container to a fault, if it is because there is no `container`.
    pub(crate) async fn known_containers(
        &self,
        fault: Fault,
        vm: &VmName,
        container: &ContainerName,
    ) -> Fault {
        if fault.kind() != Kind::NotFound || !self.runs(vm).await.unwrap_or_default() {
            return fault;
        }
        let list = answer(self.containers(vm).list(Empty {}))
            .await
            .unwrap_or_default();
        let names: Vec<_> = list
            .containers
            .iter()
            .map(|found| found.name.as_str())
            .collect();
        with_nearest(fault, container.as_str(), &names, "see testudo list")
    }

    /// Adds the nearest snapshot to a fault, if it is because `container` has no such `snapshot`.
    pub(crate) async fn known_snapshots(
        &self,
        fault: Fault,
        vm: &VmName,
        (container, snapshot): (&ContainerName, &SnapshotName),
    ) -> Fault {
        if fault.kind() != Kind::NotFound {
            return fault;
        }
        let named = ContainerRef {
            container: container.to_string(),
        };
        let Ok(list) = answer(self.containers(vm).list_snapshots(named)).await else {
            return fault;
        };
        let names: Vec<_> = list
            .snapshots
            .iter()
            .map(|found| found.name.as_str())
            .collect();
        let see = format!("see testudo snapshot list {container}");
        with_nearest(fault, snapshot.as_str(), &names, &see)
    }
}

/// Adds the one of `known` that is nearest to `name`, which is likelier meant than what the fault suggests. Where `name`
/// is among them, something else was not found.
fn with_nearest(fault: Fault, name: &str, known: &[&str], otherwise: &str) -> Fault {
    if known.contains(&name) {
        return fault;
    }
    match suggest::nearest(name, known.iter().copied()) {
        Some(near) => fault.hint(format!("did you mean {near}?")),
        None if fault.parts().hint.is_empty() => fault.hint(otherwise),
        None => fault,
    }
}

/// Waits for the answer to a call that answers once.
pub(crate) async fn answer<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Fault::new(
            Kind::Unreachable,
            "E-DAEMON-SILENT",
            format!(
                "the daemon did not answer within {} s",
                CALL_DEADLINE.as_secs()
            ),
        )),
    }
}
