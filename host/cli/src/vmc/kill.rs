//! `vmc kill`: at once.

use clap::Args;
use wire::Fault;
use wire::proto::VmRef;

use super::{Call, Named};
use crate::client::answer;

/// End a VM at once, as if its power were cut
///
/// For a VM that vmc stop cannot end. Files on its disk survive, but what was not yet written is lost.
#[derive(Debug, Args)]
pub(super) struct Kill {
    #[command(flatten)]
    vm: Named,
}

impl Kill {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = self.vm.name;
        let client = call.client().await?;
        match answer(client.vms().kill(VmRef { vm: vm.to_string() })).await {
            Err(fault) => Err(client.known_vms(fault, &vm).await),
            Ok(_) => Ok(()),
        }
    }
}
