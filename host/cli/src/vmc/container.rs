//! `vmc container`: a container from nothing to a shell.

use clap::Args;
use wire::proto::ContainerRef;
use wire::{ContainerName, Fault, Kind};

use super::{Call, Named};
use crate::boot::{self, Missing};
use crate::client::answer;
use crate::create::{self, SourceOptions};
use crate::end::End;
use crate::options::SessionOptions;
use crate::session::{Place, Session};
use crate::ui::Stages;
use crate::{completion, options};

/// Create and start a container and open a shell in it
///
/// What exists and runs already is used as it is.
#[derive(Debug, Args)]
pub(super) struct Container {
    #[command(flatten)]
    vm: Named,
    /// The container
    #[arg(value_parser = options::container, add = completion::containers())]
    container: ContainerName,
    #[command(flatten)]
    source: SourceOptions,
    /// Do not open a shell
    #[arg(long)]
    pub(super) no_shell: bool,
}

impl Container {
    /// Returns whether it is to be made from files of the user.
    pub(super) fn has_source(&self) -> bool {
        self.source.is_given()
    }

    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<End, Fault> {
        let vm = self.vm.name;
        let source = self.source.open()?;
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        boot::vm(&client, &vm, Missing::Create, &mut stages).await?;
        let named = ContainerRef {
            container: self.container.to_string(),
        };
        match answer(client.containers(&vm).info(named)).await {
            Err(fault) if fault.kind() == Kind::NotFound => {
                let header = create::header(&self.container, &source);
                create::container(&client, &vm, header, source, &mut stages).await?;
            }
            Err(fault) => return Err(fault),
            Ok(_) => {}
        }
        boot::container(&client, &vm, &self.container, Missing::Refuse, &mut stages).await?;
        if self.no_shell {
            stages.finish("started");
            return Ok(End::Done);
        }
        let place = Place {
            vm,
            container: Some(self.container),
        };
        let options = SessionOptions::plain();
        stages.under_way(boot::stays(&place));
        let open = Session::open(&client, &place, &options, Vec::new());
        let session = stages.stage("shell", open).await?;
        stages.finish("ready");
        Ok(End::Session(Box::new(session)))
    }
}
