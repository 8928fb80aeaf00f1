//! `testudo shell`, and `testudo` alone: a login shell.

use clap::Args;
use wire::{ContainerName, Fault};

use super::Call;
use crate::boot::{self, Missing};
use crate::completion;
use crate::end::End;
use crate::options::{self, SessionOptions};
use crate::session::Place;

/// Open a login shell in a container, starting it if need be
///
/// The default container is created when it does not exist; any other must exist. To leave a shell that no longer
/// answers, type Enter, then ~ and a full stop.
#[derive(Debug, Args)]
pub(super) struct Shell {
    /// The container (default: the default one)
    #[arg(value_parser = options::container, add = completion::containers())]
    name: Option<ContainerName>,
    #[command(flatten)]
    session: SessionOptions,
}

impl Shell {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<End, Fault> {
        let missing = if self.name.is_none() {
            Missing::Create
        } else {
            Missing::Refuse
        };
        let place = Place {
            vm: call.vm()?,
            container: Some(call.container(self.name)?),
        };
        let client = call.client().await?;
        let process = (&self.session, Vec::new());
        let session = boot::session(call.ui, &client, place, missing, process).await?;
        Ok(End::Session(Box::new(session)))
    }
}

/// Opens a shell in the default container, creating and starting whatever is missing.
pub(super) async fn open(call: &Call<'_>) -> Result<End, Fault> {
    Shell {
        name: None,
        session: SessionOptions::plain(),
    }
    .carry_out(call)
    .await
}
