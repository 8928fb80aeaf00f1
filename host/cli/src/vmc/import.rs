//! `vmc import`: a VM from what export wrote.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use wire::proto::import_vm::Part;
use wire::proto::{ImportVm, VmRef};
use wire::{Fault, VmName};

use super::Call;
use crate::options;
use crate::transfer;
use crate::ui::Stages;

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
        let vm = self.name.to_string();
        let first = Part::Vm(VmRef { vm });
        let first = ImportVm { part: Some(first) };
        let (parts, unreadable) = transfer::carry(first, vec![file], |_, data| ImportVm {
            part: Some(Part::Data(data)),
        });
        let mut vms = client.vms();
        let import = stages.follow(vms.import(parts));
        // Leaving the call is what tells the daemon that the file did not come to its end.
        tokio::select! {
            imported = import => imported?,
            error = unreadable => return Err(transfer::unreadable(&self.file, &error)),
        }
        stages.finish("imported");
        call.ui.note(&format!("created VM {}", self.name));
        call.ui.next(&format!("vmc start {}", self.name));
        Ok(())
    }
}
