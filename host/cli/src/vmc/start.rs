//! `vmc start`: a VM, and a shell in it.

use clap::Args;
use link::config::EngineChoice;
use wire::Fault;
use wire::proto::StartVm;

use super::{Call, Named};
use crate::boot::{self, Missing};
use crate::end::End;
use crate::options::SessionOptions;
use crate::session::Place;
use crate::ui::Stages;

/// Start a VM and open a shell in it
///
/// The VM is created when it does not exist, and goes on where it was when it was saved. A running VM is success at once.
#[derive(Debug, Args)]
pub(super) struct Start {
    #[command(flatten)]
    vm: Named,
    /// Do not open a shell
    #[arg(long)]
    pub(super) no_shell: bool,
    /// Run it on this engine: auto, crosvm or qemu (default: as config.toml says)
    #[arg(long, value_name = "ENGINE")]
    engine: Option<EngineChoice>,
    /// Boot it anew although it was saved: what was in its memory is lost
    #[arg(long)]
    force_boot: bool,
}

impl Start {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<End, Fault> {
        let client = call.client().await?;
        let vm = self.vm.name;
        if self.no_shell || self.engine.is_some() || self.force_boot {
            let mut stages = Stages::new(call.ui);
            let start = StartVm {
                vm: vm.to_string(),
                create: true,
                engine: self
                    .engine
                    .map_or_else(String::new, |engine| engine.to_string()),
                force_boot: self.force_boot,
            };
            boot::vm_as(&client, &vm, start, &mut stages).await?;
            stages.finish("started");
        }
        if self.no_shell {
            return Ok(End::Done);
        }
        let place = Place {
            vm,
            container: None,
        };
        let process = (&SessionOptions::plain(), Vec::new());
        let session = boot::session(call.ui, &client, place, Missing::Create, process).await?;
        Ok(End::Session(Box::new(session)))
    }
}
