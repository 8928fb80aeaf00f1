//! `testudo run`: one command in a container that is created and started if need be.

use clap::Args;
use wire::{ContainerName, Fault};

use super::Call;
use crate::boot::{self, Missing};
use crate::completion;
use crate::end::End;
use crate::options::{self, SessionOptions};
use crate::session::Place;

/// Run a command in a container, creating and starting whatever is missing
///
/// Without a command, the login shell. The exit status is the command's; 125 when Testudo failed, 126 when the
/// command cannot be executed, 127 when it was not found.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  testudo run -- uname -a\n  tar c src | testudo run -c build -- tar x"
)]
pub(super) struct Run {
    /// The container (default: the default one)
    #[arg(short, long, value_parser = options::container, add = completion::containers())]
    container: Option<ContainerName>,
    #[command(flatten)]
    session: SessionOptions,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Run {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<End, Fault> {
        let place = Place {
            vm: call.vm()?,
            container: Some(call.container(self.container)?),
        };
        let client = call.client().await?;
        let process = (&self.session, self.command);
        let session = boot::session(call.ui, &client, place, Missing::Create, process).await?;
        Ok(End::Session(Box::new(session)))
    }
}
