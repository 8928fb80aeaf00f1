//! Ends a VM on the host, in three steps: its agent is asked; if that does not answer, the power button is
//! pressed; when time is up, the engine is killed.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::machine::Machine;
use super::work::Order;
use crate::log::Log;

/// What a guest without an agent gets to react to the power button, of its whole time at most.
const BUTTON: Duration = Duration::from_secs(3);

/// Kept back from the guest's time for the kernel's own end.
const KERNEL: Duration = Duration::from_millis(500);

/// Ends `machine`; nothing of it is left afterwards.
pub(super) async fn run(mut machine: Machine, patience: Duration, order: &Order, log: &Log) {
    let stage = order.audience.stage("stop");
    log.line("concierge: stopping");
    let polite = async {
        let agent = machine.agent.clone();
        let asked = agent.power_off(patience.saturating_sub(KERNEL));
        let wait = tokio::select! {
            answer = asked => match answer {
                Ok(_) => patience,
                Err(fault) => {
                    log.line(&format!("concierge: {fault}; pressing the power button"));
                    machine.power_button();
                    BUTTON.min(patience)
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
    };
    tokio::select! {
        () = polite => {}
        () = order.cancel.cancelled() => log.line("concierge: killing"),
        () = sleep(patience) => {
            log.line("concierge: out of time; killing");
            order.audience.note("the guest did not end in time and was killed");
        }
    }
    machine.kill().await;
    log.line("concierge: stopped");
    stage.done();
}
