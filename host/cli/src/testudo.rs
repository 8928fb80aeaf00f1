//! `testudo`: the container verbs, one file each. Without a verb: a shell in the default container.

mod clipboard;
mod completions;
mod copy;
mod create;
mod default;
mod delete;
mod df;
mod exec;
mod export;
mod import;
mod info;
mod list;
mod logs;
mod rename;
mod restart;
mod run;
mod set;
mod shell;
mod shutdown;
mod snapshot;
mod start;
mod stop;
mod top;
mod version;
mod wait;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use link::places::Places;
use wire::{ContainerName, Fault, VmName};

use crate::client::Client;
use crate::completion;
use crate::defaults::{self, Defaults};
use crate::doctor::Doctor;
use crate::end::End;
use crate::man;
use crate::options::{self, Output};
use crate::ui::Ui;

/// Linux containers in a small fast VM.
///
/// Without a command, opens a shell in the default container (penguin in the VM termina), creating and starting
/// whatever is missing; its exit status is passed through.
#[derive(Debug, Parser)]
#[command(
    name = "testudo",
    version,
    arg_required_else_help = false,
    after_help = EXAMPLES,
    max_term_width = 100
)]
pub(crate) struct Testudo {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    target: TargetOptions,
}

const EXAMPLES: &str = "\
Examples:
  testudo                         a shell in penguin
  testudo run -- make -j4         one command there, with its exit status
  testudo create dev && testudo shell dev
  testudo export dev - | ssh backup 'cat > dev.tar.zst'

Names: --vm, then TESTUDO_VM and TESTUDO_CONTAINER, then `testudo default`, then config.toml.
Exit status of run, exec, shell: the command's own; 125 when Testudo failed, 126 when the command
cannot be executed, 127 when it was not found. Of the others: 0, or 1 to 8 by the kind of failure.
See also vmc(1), vsh(1), crosh(1).";

/// Which VM is meant.
#[derive(Debug, Clone, Args)]
struct TargetOptions {
    /// The VM that holds the container
    #[arg(long, global = true, value_parser = options::vm, value_name = "VM", add = completion::vms())]
    vm: Option<VmName>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Run),
    Shell(shell::Shell),
    Exec(exec::Exec),
    #[command(visible_alias = "ls")]
    List(list::List),
    Create(Box<create::Create>),
    Start(start::Start),
    Stop(stop::Stop),
    Restart(restart::Restart),
    #[command(visible_alias = "rm")]
    Delete(delete::Delete),
    Rename(rename::Rename),
    #[command(visible_alias = "cp")]
    Copy(copy::Copy),
    Snapshot(snapshot::Snapshot),
    Export(export::Export),
    Import(import::Import),
    Logs(logs::Logs),
    Info(info::Info),
    Wait(wait::Wait),
    Df(df::Df),
    Top(top::Top),
    Doctor(Doctor),
    Set(set::Set),
    Clipboard(clipboard::Clipboard),
    Default(default::Default),
    Shutdown(shutdown::Shutdown),
    Version(version::Version),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(Man),
}

/// Write the manual pages into a folder.
#[derive(Debug, Args)]
struct Man {
    #[arg(value_hint = ValueHint::DirPath)]
    folder: PathBuf,
}

/// What every verb is given.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// How to talk to the user.
    pub(crate) ui: &'a Ui,
    /// The user's folders.
    pub(crate) places: Places,
    vm: Option<VmName>,
}

impl Call<'_> {
    /// Returns the VM that is meant.
    fn vm(&self) -> Result<VmName, Fault> {
        match &self.vm {
            Some(vm) => Ok(vm.clone()),
            None => Ok(Defaults::load(&self.places)?.vm),
        }
    }

    /// Returns the container that is meant: `named`, else the default one.
    fn container(&self, named: Option<ContainerName>) -> Result<ContainerName, Fault> {
        match named {
            Some(container) => Ok(container),
            None => Ok(Defaults::load(&self.places)?.container),
        }
    }

    /// Returns the containers that are meant: those `named`, else the default one.
    fn containers(&self, named: Vec<ContainerName>) -> Result<Vec<ContainerName>, Fault> {
        if named.is_empty() {
            Ok(vec![self.container(None)?])
        } else {
            Ok(named)
        }
    }

    /// Connects to the daemon, starting it when it does not run.
    async fn client(&self) -> Result<Client, Fault> {
        Client::connect_or_start(&self.places).await
    }
}

impl Testudo {
    /// Returns whether the call ends with the status of a process in the guest.
    pub(crate) fn joins_a_process(&self) -> bool {
        matches!(
            self.verb,
            None | Some(Verb::Run(_) | Verb::Shell(_) | Verb::Exec(_))
        )
    }
}

/// Returns whether `word` is a verb that ends with the status of a process in the guest.
pub(crate) fn is_session_verb(word: &str) -> bool {
    matches!(word, "run" | "shell" | "exec")
}

/// Carries the call out.
pub(crate) async fn run(testudo: Testudo, ui: &Ui) -> Result<End, Fault> {
    let call = Call {
        ui,
        places: defaults::places()?,
        vm: testudo.target.vm,
    };
    let Some(verb) = testudo.verb else {
        return shell::open(&call).await;
    };
    match verb {
        Verb::Run(run) => return run.carry_out(&call).await,
        Verb::Shell(shell) => return shell.carry_out(&call).await,
        Verb::Exec(exec) => return exec.carry_out(&call).await,
        Verb::Doctor(doctor) => return doctor.carry_out(ui, &call.places),
        Verb::List(list) => list.carry_out(&call).await,
        Verb::Create(create) => create.carry_out(&call).await,
        Verb::Start(start) => start.carry_out(&call).await,
        Verb::Stop(stop) => stop.carry_out(&call).await,
        Verb::Restart(restart) => restart.carry_out(&call).await,
        Verb::Delete(delete) => delete.carry_out(&call).await,
        Verb::Rename(rename) => rename.carry_out(&call).await,
        Verb::Copy(copy) => copy.carry_out(&call).await,
        Verb::Snapshot(snapshot) => snapshot.carry_out(&call).await,
        Verb::Export(export) => export.carry_out(&call).await,
        Verb::Import(import) => import.carry_out(&call).await,
        Verb::Logs(logs) => logs.carry_out(&call).await,
        Verb::Info(info) => info.carry_out(&call).await,
        Verb::Wait(wait) => wait.carry_out(&call).await,
        Verb::Df(df) => df.carry_out(&call).await,
        Verb::Top(top) => top.carry_out(&call).await,
        Verb::Set(set) => set.carry_out(&call).await,
        Verb::Clipboard(clipboard) => clipboard.carry_out(&call).await,
        Verb::Default(default) => default.carry_out(&call),
        Verb::Shutdown(shutdown) => shutdown.carry_out(&call).await,
        Verb::Version(version) => version.carry_out(&call).await,
        Verb::Completions(completions) => completions.carry_out(&call),
        Verb::Man(Man { folder }) => man::write(&folder),
    }
    .map(|()| End::Done)
}
