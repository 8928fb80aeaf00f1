//! `testudo default`: which container is meant when none is named.

use clap::Args;
use wire::{ContainerName, Fault};

use super::Call;
use crate::defaults::{Choice, Defaults};
use crate::{completion, options};

/// Show or choose the default container
///
/// With --vm, its VM too. The choice wins over config.toml, and TESTUDO_CONTAINER and TESTUDO_VM win over it.
#[derive(Debug, Args)]
pub(super) struct Default {
    /// The container that is meant from now on
    #[arg(value_parser = options::container, add = completion::containers())]
    name: Option<ContainerName>,
    /// Forget the choice
    #[arg(long, conflicts_with = "name")]
    clear: bool,
}

impl Default {
    pub(super) fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        if self.clear {
            Choice::default().save(&call.places)?;
        } else if self.name.is_some() || call.vm.is_some() {
            let mut choice = Choice::load(&call.places)?;
            choice.container = self.name.or(choice.container);
            choice.vm = call.vm.clone().or(choice.vm);
            choice.save(&call.places)?;
        }
        let Defaults { vm, container } = Defaults::load(&call.places)?;
        if call.ui.json() {
            return call.ui.object(
                "default",
                &serde_json::json!({ "vm": vm, "container": container }),
            );
        }
        call.ui.line(&format!("{container} in {vm}"))
    }
}
