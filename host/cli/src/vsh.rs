//! `vsh`: a shell or one command, by VM and container, which are started if need be and never made.

use clap::Parser;
use wire::{ContainerName, Fault, VmName};

use crate::boot::{self, Missing};
use crate::client::Client;
use crate::end::End;
use crate::options::{Output, SessionOptions};
use crate::session::Place;
use crate::ui::Ui;
use crate::{completion, defaults, options};

/// A shell, or one command, in a VM or in a container of it.
///
/// Both are started if need be, and must exist: `vmc create` and `testudo create` make them.
///
/// Without a command, a login shell. With a terminal on stdin and stdout the process gets one too; otherwise three
/// pipes, so that stdin, stdout and stderr stay apart and bytes are not changed.
///
/// To leave a session that no longer answers: Enter, then `~.` (`~?` lists what there is, `~~` is a tilde).
#[derive(Debug, Parser)]
#[command(name = "vsh", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Vsh {
    /// The VM
    #[arg(value_parser = options::vm, add = completion::vms())]
    vm: VmName,
    /// The container (default: none, the VM itself)
    #[arg(value_parser = options::container, add = completion::containers())]
    container: Option<ContainerName>,
    #[command(flatten)]
    session: SessionOptions,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

const EXAMPLES: &str = "\
Examples:
  vsh termina                         a shell in the VM itself, as root
  vsh termina penguin                 a shell in a container
  vsh termina penguin -- cat < a > b

Exit status: the command's, 128 plus the number of the signal that ended it, 125 when vsh failed, 126 when
the command cannot be executed, 127 when it was not found.
See also testudo(1), vmc(1).";

/// Carries the call out.
pub(crate) async fn run(vsh: Vsh, ui: &Ui) -> Result<End, Fault> {
    let client = Client::connect_or_start(&defaults::places()?).await?;
    let place = Place {
        vm: vsh.vm,
        container: vsh.container,
    };
    let process = (&vsh.session, vsh.command);
    let session = boot::session(ui, &client, place, Missing::Refuse, process).await?;
    Ok(End::Session(Box::new(session)))
}
