//! Ends a VM on the host, in three steps: its agent is asked; if that does not answer, the power button is
//! pressed; when time is up, the engine is killed.

use std::time::Duration;

use tokio::time::timeout;

use super::machine::Machine;
use super::work::Order;
use crate::log::Log;

/// What a guest without an agent gets to react to the power button.
const BUTTON: Duration = Duration::from_secs(3);

/// What a guest whose containers have ended gets to write its disk out and power off.
const END: Duration = Duration::from_secs(10);

/// Ends `machine`, whose containers get `patience`; nothing of it is left afterwards.
pub(super) async fn run(mut machine: Machine, patience: Duration, order: &Order, log: &Log) {
    let stage = order.audience.stage("stop");
    log.line("concierge: stopping");
    tokio::select! {
        () = polite(&mut machine, patience, order, log) => {}
        () = order.cancel.cancelled() => log.line("concierge: killing"),
    }
    machine.kill().await;
    log.line("concierge: stopped");
    stage.done();
}

async fn polite(machine: &mut Machine, patience: Duration, order: &Order, log: &Log) {
    let agent = machine.agent.clone();
    let wait = tokio::select! {
        answer = agent.power_off(patience) => match answer {
            Ok(_) => END,
            Err(fault) => {
                log.line(&format!("concierge: {fault}; pressing the power button"));
                machine.power_button();
                BUTTON
            }
        },
        // The power may go before the answer comes.
        _gone = machine.lost() => return,
    };
    if timeout(wait, machine.lost()).await.is_err() {
        log.line("concierge: the guest did not end; killing");
        order
            .audience
            .note("the guest did not end in time and was killed");
    }
}
