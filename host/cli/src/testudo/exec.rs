//! `testudo exec`: one command in a container that runs already.

use clap::Args;
use wire::proto::VmState;
use wire::{ContainerName, Fault, Kind};

use super::Call;
use crate::completion;
use crate::end::End;
use crate::options::{self, SessionOptions};
use crate::session::{Place, Session};

/// Run a command in a running container
///
/// Nothing is started for it: that is what `testudo run` does. The exit status is the command's; 125 when Testudo
/// failed, 126 when the command cannot be executed, 127 when it was not found.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  testudo exec penguin -- systemctl --failed\n  testudo exec -u root penguin -- apt-get update"
)]
pub(super) struct Exec {
    #[command(flatten)]
    session: SessionOptions,
    /// The container
    #[arg(value_parser = options::container, add = completion::containers())]
    name: ContainerName,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<End, Fault> {
        let vm = call.vm()?;
        let client = call.client().await?;
        if client.info(&vm).await?.state() != VmState::Running {
            return Err(
                Fault::new(Kind::Busy, "E-NOT-RUNNING", format!("VM {vm} does not run"))
                    .hint(format!("testudo --vm {vm} start {}", self.name)),
            );
        }
        let place = Place {
            vm: vm.clone(),
            container: Some(self.name.clone()),
        };
        match Session::open(&client, &place, &self.session, self.command).await {
            Err(fault) => Err(client.known_containers(fault, &vm, &self.name).await),
            Ok(session) => Ok(End::Session(Box::new(session))),
        }
    }
}
