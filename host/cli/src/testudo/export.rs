//! `testudo export`: a container as one file.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use wire::proto::ContainerRef;
use wire::{Bytes, ContainerName, Fault};

use super::Call;
use crate::boot::{self, Missing};
use crate::transfer::Target;
use crate::ui::Stages;
use crate::{completion, options};

/// Write a container into one file
///
/// The file (a zstd-compressed tar with a manifest and checksums) holds everything that import needs.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The container
    #[arg(value_parser = options::container, add = completion::containers())]
    name: ContainerName,
    /// The file, `-` for stdout
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(short, long)]
    force: bool,
}

impl Export {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let target = Target::open(&self.file, self.force)?;
        let ui = call.ui.beside(&target);
        let client = call.client().await?;
        let mut stages = Stages::new(&ui);
        boot::vm(&client, &vm, Missing::Refuse, &mut stages).await?;
        let named = ContainerRef {
            container: self.name.to_string(),
        };
        let stream = match client.containers(&vm).export(named).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => {
                return Err(client
                    .known_containers(status.into(), &vm, &self.name)
                    .await);
            }
        };
        let written = stages.transfer("export", target, stream).await?;
        stages.finish("exported");
        if ui.json() {
            return ui.object(
                "exported",
                &serde_json::json!({ "bytes": written.bytes, "sha256": written.sha256 }),
            );
        }
        ui.note(&format!(
            "exported {} ({})",
            self.name,
            Bytes(written.bytes)
        ));
        Ok(())
    }
}
