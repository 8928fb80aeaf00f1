//! Shell completion: the shell asks this program (`COMPLETE=bash testudo …`), which knows the grammar, and of a
//! running daemon the names of VMs and containers. Nothing is ever started for it.

use std::ffi::OsString;
use std::time::Duration;

use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use wire::proto::{Empty, VmState};
use wire::{Fault, VmName};

use crate::client::Client;
use crate::defaults;
use crate::invocation::Program;

/// Longest time for names: a slow daemon must not hold up the shell's prompt.
const DEADLINE: Duration = Duration::from_millis(300);

/// Answers a shell that asks for completions; returns whether it did.
pub(crate) fn answered(program: Program, arguments: &[OsString]) -> Result<bool, clap::Error> {
    let folder = std::env::current_dir().ok();
    CompleteEnv::with_factory(|| program.grammar())
        .bin(program.name())
        .completer(program.name())
        .try_complete(arguments.iter().cloned(), folder.as_deref())
}

/// Completes a VM's name.
pub(crate) fn vms() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(known_vms()))
}

/// Completes a container's name, of whichever VM.
pub(crate) fn containers() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(known_containers()))
}

/// Returns the names of all VMs; none when no daemon runs.
pub(crate) fn known_vms() -> Vec<String> {
    known(vm_names)
}

/// Returns the names of the containers of all running VMs; none when no daemon runs.
pub(crate) fn known_containers() -> Vec<String> {
    known(container_names)
}

fn candidates(names: Vec<String>) -> Vec<CompletionCandidate> {
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn known<F>(names: impl FnOnce(Client) -> F) -> Vec<String>
where
    F: Future<Output = Result<Vec<String>, Fault>>,
{
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return Vec::new();
    };
    let found = runtime.block_on(async {
        tokio::time::timeout(DEADLINE, async {
            match Client::connect(&defaults::places()?).await? {
                Some(client) => names(client).await,
                None => Ok(Vec::new()),
            }
        })
        .await
    });
    // No names are no reason to disturb the user's prompt with an error.
    found.unwrap_or_else(|_| Ok(Vec::new())).unwrap_or_default()
}

async fn vm_names(client: Client) -> Result<Vec<String>, Fault> {
    Ok(client.list().await?.into_iter().map(|vm| vm.name).collect())
}

async fn container_names(client: Client) -> Result<Vec<String>, Fault> {
    let mut names = Vec::new();
    for vm in client.list().await? {
        if vm.state() != VmState::Running {
            continue;
        }
        let Ok(name) = vm.name.parse::<VmName>() else {
            continue;
        };
        let list = client.containers(&name).list(Empty {}).await?.into_inner();
        names.extend(list.containers.into_iter().map(|container| container.name));
    }
    names.sort();
    names.dedup();
    Ok(names)
}
