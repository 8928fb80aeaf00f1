//! `vmc import`: a VM from what export wrote.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use tokio_stream::wrappers::ReceiverStream;
use wire::proto::import_vm::Part;
use wire::proto::{ImportVm, VmRef};
use wire::{Fault, VmName};

use super::Call;
use crate::options;
use crate::transfer;
use crate::ui::Stages;

/// Chunks that may wait for the daemon.
const QUEUE: usize = 4;

/// Make a VM from a file that export wrote
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The new VM's name
    #[arg(value_parser = options::vm)]
    name: VmName,
    /// The file, `-` for stdin
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

impl Import {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let file = transfer::open(&self.file)?;
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        let (chunks, parts) = tokio::sync::mpsc::channel(QUEUE);
        let first = Part::Vm(VmRef {
            vm: self.name.to_string(),
        });
        chunks
            .try_send(ImportVm { part: Some(first) })
            .expect("the queue is empty");
        let carry = tokio::task::spawn_blocking(move || {
            transfer::chunks(file, |data| {
                chunks
                    .blocking_send(ImportVm {
                        part: Some(Part::Data(data)),
                    })
                    .is_ok()
            })
        });
        let done = match client.vms().import(ReceiverStream::new(parts)).await {
            Ok(report) => stages.follow(report.into_inner()).await,
            Err(status) => Err(status.into()),
        };
        // A file that could not be read is why the daemon refused what came of it.
        if let Ok(Err(error)) = carry.await {
            return Err(transfer::unreadable(&self.file, &error));
        }
        done?;
        stages.finish("imported");
        call.ui.note(&format!("created VM {}", self.name));
        call.ui.next(&format!("vmc start {}", self.name));
        Ok(())
    }
}
