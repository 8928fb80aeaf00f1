//! `testudo set`: processors, memory and clipboard of the VM.

use clap::Args;
use wire::Fault;

use super::Call;
use crate::options::Setting;
use crate::settings;

/// Change the VM's processors, memory or clipboard
///
/// Says whether that holds at once or at the VM's next start. The clipboard of windows that are shown changes at once.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  testudo set cpus=4 memory=8G")]
pub(super) struct Set {
    /// What to change: cpus=N, memory=SIZE, clipboard=on|off|to-guest|to-host|ask|explicit
    #[arg(required = true, value_name = "KEY=VALUE")]
    settings: Vec<Setting>,
}

impl Set {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        settings::apply(call.ui, &call.client().await?, &vm, &self.settings).await
    }
}
