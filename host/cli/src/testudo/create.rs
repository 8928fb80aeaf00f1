//! `testudo create`: a new container.

use clap::Args;
use wire::{ContainerName, Fault};

use super::Call;
use crate::boot::{self, Missing};
use crate::create::{self, SourceOptions};
use crate::options;
use crate::ui::Stages;

/// Create a container
///
/// From the base image unless a source is given. A user with your name is made in it, who may use sudo.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  testudo create dev\n  testudo create --start --from-rootfs alpine-minirootfs.tar.gz alpine\n  podman save fedora | testudo create --from-oci - fedora"
)]
pub(super) struct Create {
    /// The new container's name
    #[arg(value_parser = options::container)]
    name: ContainerName,
    #[command(flatten)]
    source: SourceOptions,
    /// Start it when it is made
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    make: MakeOptions,
}

#[derive(Debug, Args)]
struct MakeOptions {
    /// Start it whenever its VM starts
    #[arg(long)]
    on_boot: bool,
    /// Leave the image's users as they are
    #[arg(long)]
    no_user: bool,
}

impl Create {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let source = self.source.open()?;
        let mut header = create::header(&self.name, &source);
        header.start_on_boot = self.make.on_boot;
        if self.make.no_user {
            header.user = None;
        }
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        boot::vm(&client, &vm, Missing::Create, &mut stages).await?;
        create::container(&client, &vm, header, source, &mut stages).await?;
        if self.start {
            boot::container(&client, &vm, &self.name, Missing::Refuse, &mut stages).await?;
        }
        stages.finish("done");
        call.ui.note(&format!("created container {}", self.name));
        call.ui.next(&format!("testudo shell {}", self.name));
        Ok(())
    }
}
