//! `testudo top`: what VMs and containers use, again and again.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use wire::Fault;

use super::Call;
use super::list;
use crate::json;
use crate::ui::Ui;
use crate::vmc;

/// Time between two pictures.
const PAUSE: Duration = Duration::from_secs(2);

/// Show what VMs and containers use
///
/// On a terminal the picture is renewed every two seconds until Ctrl-C; elsewhere it is printed once. With --json
/// there is one line every two seconds, or one with --once.
#[derive(Debug, Args)]
pub(super) struct Top {
    /// Only once
    #[arg(long)]
    once: bool,
}

impl Top {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let redraw = call.ui.can_redraw();
        let again = !self.once && (redraw || call.ui.json());
        loop {
            show(call, again && redraw).await?;
            if !again {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What is seen at one moment.
#[derive(Serialize)]
struct Picture {
    vms: Vec<json::Vm>,
    containers: Vec<json::Container>,
}

async fn show(call: &Call<'_>, redraw: bool) -> Result<(), Fault> {
    let (vms, containers) = list::known(call).await?;
    let ui: &Ui = call.ui;
    if ui.json() {
        let containers = containers.iter();
        let picture = Picture {
            vms: vms.iter().map(json::Vm::from).collect(),
            containers: containers
                .map(|(vm, found)| json::Container::of(vm, found))
                .collect(),
        };
        return ui.object("top", &picture);
    }
    if redraw {
        ui.clear()?;
    }
    ui.table(&vmc::top::vms(&vms))?;
    if !containers.is_empty() {
        ui.line("")?;
        ui.table(&vmc::top::containers(&containers))?;
    }
    Ok(())
}
