//! Why a session ended that did not end by itself. The connection only says that it is gone, so the daemon is asked.

use std::time::Duration;

use link::places::Places;
use tokio::runtime::Builder;
use wire::proto::{ContainerRef, ContainerState, VmState};
use wire::{Fault, Kind};

use super::Place;
use crate::client::{Client, answer};

/// Longest wait for the answer: whoever has lost a shell waits for a prompt.
const PATIENCE: Duration = Duration::from_secs(2);

/// Returns what ended under the session; `None` when its place still runs, or nobody can tell.
pub(super) fn reason(place: &Place) -> Option<Fault> {
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(place)).await });
    asked.ok().flatten()
}

async fn ask(place: &Place) -> Option<Fault> {
    let vm = &place.vm;
    let places = Places::of_user().ok()?;
    let Some(client) = Client::connect(&places).await.ok()? else {
        return Some(
            ended(format!("the connection to VM {vm} ended"))
                .cause("the daemon concierge ended, and its VMs with it")
                .hint("the next command starts it again"),
        );
    };
    let found = client.info(vm).await.ok()?;
    match found.state() {
        VmState::Running => {}
        _ if found.last_end.is_empty() => {
            return Some(
                ended(format!("VM {vm} was stopped"))
                    .hint(format!("to start it again: vmc start {vm}")),
            );
        }
        _ => {
            return Some(
                ended(format!("VM {vm} has ended"))
                    .cause(found.last_end)
                    .hint(format!("what it said last: vmc logs {vm} --console")),
            );
        }
    }
    let container = place.container.as_ref()?;
    let named = ContainerRef {
        container: container.to_string(),
    };
    let found = answer(client.containers(vm).info(named)).await.ok()?;
    (found.state() != ContainerState::Running).then(|| {
        ended(format!("container {container} was stopped"))
            .hint(format!("to start it again: testudo start {container}"))
    })
}

fn ended(message: String) -> Fault {
    Fault::new(Kind::Unreachable, "E-SESSION-LOST", message)
}
