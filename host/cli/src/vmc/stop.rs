//! `vmc stop`: politely, then harder.

use std::time::Duration;

use clap::Args;
use wire::Fault;
use wire::proto::StopVm;

use super::{Call, Named};
use crate::options;
use crate::ui::Stages;

/// Stop a VM
///
/// Its containers are stopped first and its disk is written; what does not end in time is ended. A stopped VM is
/// success at once.
#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    vm: Named,
    /// Seconds for the polite part (default: 15)
    #[arg(long, value_parser = options::seconds, value_name = "SECONDS")]
    timeout: Option<Duration>,
}

impl Stop {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = self.vm.name;
        let timeout = self.timeout.unwrap_or_default().as_millis();
        let stop = StopVm {
            vm: vm.to_string(),
            timeout_ms: u32::try_from(timeout).unwrap_or(u32::MAX),
        };
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        stages.under_way(format!(
            "{vm} goes on stopping; to end it at once: vmc kill {vm}"
        ));
        if let Err(fault) = stages.follow(client.vms().stop(stop)).await {
            return Err(client.known_vms(fault, &vm).await);
        }
        stages.finish("stopped");
        Ok(())
    }
}
