//! `vmc export`: a VM as one file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use wire::proto::VmRef;
use wire::{Bytes, Fault};

use super::{Call, Named};
use crate::transfer::{self, Target};
use crate::ui::Stages;

/// Write a stopped VM, its disk and settings, into one file
///
/// The file is compressed and carries checksums.
#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    vm: Named,
    /// The file, `-` for stdout
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(short, long)]
    force: bool,
    /// Also write the file's sha256 to FILE.sha256.txt
    #[arg(short, long)]
    digest: bool,
}

impl Export {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = self.vm.name;
        let target = Target::open(&self.file, self.force)?;
        let ui = call.ui.beside(&target);
        let client = call.client().await?;
        let mut stages = Stages::new(&ui);
        let stream = match client.vms().export(VmRef { vm: vm.to_string() }).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Err(client.known_vms(status.into(), &vm).await),
        };
        let written = stages.transfer("export", target, stream).await?;
        stages.finish("exported");
        if self.digest && self.file != Path::new("-") {
            let mut path = OsString::from(&self.file);
            path.push(".sha256.txt");
            let line = format!("{}  {}\n", written.sha256, self.file.display());
            std::fs::write(&path, line)
                .map_err(|error| transfer::unwritable(Path::new(&path), &error))?;
        }
        if ui.json() {
            return ui.object(
                "exported",
                &serde_json::json!({ "bytes": written.bytes, "sha256": written.sha256 }),
            );
        }
        ui.note(&format!("exported {vm} ({})", Bytes(written.bytes)));
        Ok(())
    }
}
