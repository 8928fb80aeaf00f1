//! `testudo clipboard`: lets copied data cross, in the modes that want to be told each time.

use clap::{Args, ValueEnum};
use tokio_stream::StreamExt;
use wire::proto::{ClipboardAnswer, ClipboardGrant, ClipboardWay, VmRef};
use wire::{Fault, VmName};

use super::Call;
use crate::client::{Client, answer};

/// Let copied data cross between the host and the VM's programs
///
/// With a direction: one transfer may go that way within a minute, with `testudo set clipboard=explicit`. Without: asks here
/// about each transfer until Ctrl-C, with `testudo set clipboard=ask`; while nobody is asked the answer is no.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  testudo set clipboard=explicit && testudo clipboard to-guest")]
pub(super) struct Clipboard {
    /// Which way
    direction: Option<Direction>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Direction {
    /// From the host into the VM
    ToGuest,
    /// From the VM to the host
    ToHost,
}

impl Clipboard {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let client = call.client().await?;
        let Some(direction) = self.direction else {
            return listen(call, &client, &vm).await;
        };
        let way = match direction {
            Direction::ToGuest => ClipboardWay::ToGuest,
            Direction::ToHost => ClipboardWay::ToHost,
        };
        let grant = ClipboardGrant {
            vm: vm.to_string(),
            way: way.into(),
        };
        answer(client.vms().grant_clipboard(grant)).await?;
        call.ui.note("one transfer may cross within a minute");
        Ok(())
    }
}

async fn listen(call: &Call<'_>, client: &Client, vm: &VmName) -> Result<(), Fault> {
    let vm = vm.to_string();
    let asked = VmRef { vm: vm.clone() };
    let mut questions = answer(client.vms().clipboard_questions(asked)).await?;
    call.ui.note("asks here about each transfer, until Ctrl-C");
    while let Some(question) = questions.next().await {
        let question = question.map_err(Fault::from)?;
        let what = match question.way() {
            ClipboardWay::ToGuest => format!("{vm} wants what was copied on the host"),
            ClipboardWay::ToHost => format!("the host wants what was copied in {vm}"),
        };
        let text = format!("{what} ({}): allow?", question.mime_type);
        // Whoever cannot be asked has not said yes, and is not to be asked again.
        let said = call.ui.confirm(&text, "testudo set clipboard=on").await;
        let allow = said.is_ok();
        let id = question.id;
        let reply = ClipboardAnswer {
            vm: vm.clone(),
            id,
            allow,
        };
        answer(client.vms().answer_clipboard(reply)).await?;
        if let Err(fault) = said
            && fault.parts().code == "E-CONFIRM"
        {
            return Err(fault);
        }
    }
    Ok(())
}
