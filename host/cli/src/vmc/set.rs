//! `vmc set`: processors, memory and clipboard.

use clap::Args;
use wire::Fault;

use super::{Call, Named};
use crate::options::Setting;
use crate::settings;

/// Change a VM's processors, memory or clipboard
///
/// Says whether that holds at once or at the VM's next start. The clipboard of windows that are shown changes at once.
#[derive(Debug, Args)]
pub(super) struct Set {
    #[command(flatten)]
    vm: Named,
    /// What to change: cpus=N, memory=SIZE, clipboard=on|off|to-guest|to-host|ask|explicit
    #[arg(required = true, value_name = "KEY=VALUE")]
    settings: Vec<Setting>,
}

impl Set {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        settings::apply(
            call.ui,
            &call.client().await?,
            &self.vm.name,
            &self.settings,
        )
        .await
    }
}
