//! `vmc`: the VM verbs, as in ChromeOS, one file each.

mod container;
mod create;
mod destroy;
mod export;
mod import;
mod info;
mod kill;
mod list;
pub(crate) mod logs;
mod resize;
mod save;
mod set;
mod start;
mod stop;
pub(crate) mod top;

use clap::{Args, Parser, Subcommand};
use link::places::Places;
use wire::{Fault, VmName};

use crate::client::Client;
use crate::end::End;
use crate::options::Output;
use crate::ui::Ui;
use crate::{completion, defaults, options};

/// Virtual machines: create, start, stop, look into.
#[derive(Debug, Parser)]
#[command(
    name = "vmc",
    version,
    arg_required_else_help = true,
    after_help = EXAMPLES,
    max_term_width = 100
)]
pub(crate) struct Vmc {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    pub(crate) output: Output,
}

const EXAMPLES: &str = "\
Examples:
  vmc start termina                   start it and open a shell in the VM itself
  vmc container termina penguin       create and start a container and open a shell in it
  vmc create --size 20G lab && vmc start --no-shell lab
  vmc export lab lab.tar.zst -d

Exit status: 0, or 1 to 8 by the kind of failure. Where the call ends in a shell, the shell's, or 125.
See also testudo(1), vsh(1), crosh(1).";

#[derive(Debug, Subcommand)]
enum Verb {
    Create(create::Create),
    Start(start::Start),
    Stop(stop::Stop),
    Save(save::Save),
    Kill(kill::Kill),
    #[command(visible_alias = "ls")]
    List(list::List),
    Info(info::Info),
    Destroy(destroy::Destroy),
    Resize(resize::Resize),
    Set(set::Set),
    Export(export::Export),
    Import(import::Import),
    Logs(logs::Logs),
    Container(Box<container::Container>),
}

/// The VM of a verb.
#[derive(Debug, Clone, Args)]
struct Named {
    /// The VM
    #[arg(value_parser = options::vm, add = completion::vms())]
    name: VmName,
}

/// What every verb is given.
#[derive(Debug)]
struct Call<'a> {
    ui: &'a Ui,
    places: Places,
}

impl Call<'_> {
    /// Connects to the daemon, starting it when it does not run.
    async fn client(&self) -> Result<Client, Fault> {
        Client::connect_or_start(&self.places).await
    }
}

impl Vmc {
    /// Returns whether the call ends with the status of a process in the guest.
    pub(crate) fn joins_a_process(&self) -> bool {
        match &self.verb {
            Verb::Start(start) => !start.no_shell,
            Verb::Container(container) => !container.no_shell,
            _ => false,
        }
    }

    /// Returns whether the call opens files of the host that the user names.
    pub(crate) fn opens_files(&self) -> bool {
        match &self.verb {
            Verb::Export(_) | Verb::Import(_) => true,
            Verb::Logs(logs) => logs.to_file(),
            Verb::Container(container) => container.has_source(),
            _ => false,
        }
    }
}

/// Carries the call out.
pub(crate) async fn run(vmc: Vmc, ui: &Ui) -> Result<End, Fault> {
    let call = Call {
        ui,
        places: defaults::places()?,
    };
    match vmc.verb {
        Verb::Start(start) => return start.carry_out(&call).await,
        Verb::Container(container) => return container.carry_out(&call).await,
        Verb::Create(create) => create.carry_out(&call).await,
        Verb::Stop(stop) => stop.carry_out(&call).await,
        Verb::Save(save) => save.carry_out(&call).await,
        Verb::Kill(kill) => kill.carry_out(&call).await,
        Verb::List(list) => list.carry_out(&call).await,
        Verb::Info(info) => info.carry_out(&call).await,
        Verb::Destroy(destroy) => destroy.carry_out(&call).await,
        Verb::Resize(resize) => resize.carry_out(&call).await,
        Verb::Set(set) => set.carry_out(&call).await,
        Verb::Export(export) => export.carry_out(&call).await,
        Verb::Import(import) => import.carry_out(&call).await,
        Verb::Logs(logs) => logs.carry_out(&call).await,
    }
    .map(|()| End::Done)
}
