//! `vmc logs`: what a VM and the programs around it have said.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use wire::proto::{VmLog, VmLogsRequest};
use wire::{Fault, VmName};

use super::{Call, Named};
use crate::client::Client;
use crate::transfer::Target;
use crate::ui::{LogPrinter, Stages};

/// Print a VM's log
///
/// Without an option: what the daemon, the engine and the devices logged of this VM.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    vm: Named,
    /// A new file to write it to, instead of stdout
    #[arg(value_hint = ValueHint::FilePath, conflicts_with = "follow")]
    file: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// Go on printing what is added
    #[arg(short, long)]
    follow: bool,
    /// Only lines of the request with this id
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    request: Option<String>,
}

/// Which of a VM's logs.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Which {
    /// The VM's kernel console
    #[arg(long, conflicts_with = "agent")]
    console: bool,
    /// The agent in the VM
    #[arg(long)]
    agent: bool,
}

impl Which {
    /// Returns the log that was chosen, if one was.
    pub(crate) fn chosen(self) -> Option<VmLog> {
        match self {
            Self { console: true, .. } => Some(VmLog::Console),
            Self { agent: true, .. } => Some(VmLog::Agent),
            _ => None,
        }
    }
}

impl Logs {
    /// Returns whether a file of the host is written.
    pub(super) fn to_file(&self) -> bool {
        self.file.is_some()
    }

    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let log = self.which.chosen().unwrap_or(VmLog::All);
        let client = call.client().await?;
        let vm = self.vm.name;
        let Some(file) = &self.file else {
            let printer = LogPrinter::new(call.ui, self.request);
            return print(&client, &vm, (log, self.follow), printer).await;
        };
        save(call, &client, request(&vm, (log, false)), file).await
    }
}

fn request(vm: &VmName, (log, follow): (VmLog, bool)) -> VmLogsRequest {
    VmLogsRequest {
        vm: vm.to_string(),
        log: log.into(),
        follow,
    }
}

async fn save(
    call: &Call<'_>,
    client: &Client,
    request: VmLogsRequest,
    file: &Path,
) -> Result<(), Fault> {
    let target = Target::open(file, false)?;
    let stream = client.vms().logs(request).await?.into_inner();
    let mut stages = Stages::new(call.ui);
    stages.transfer("log", target, stream).await?;
    stages.finish("written");
    Ok(())
}

/// Prints one log of `vm`, to its end or for ever.
pub(crate) async fn print(
    client: &Client,
    vm: &VmName,
    which: (VmLog, bool),
    mut printer: LogPrinter<'_>,
) -> Result<(), Fault> {
    let mut stream = match client.vms().logs(request(vm, which)).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return Err(client.known_vms(status.into(), vm).await),
    };
    while let Some(chunk) = stream.message().await? {
        printer.push(&chunk.data)?;
    }
    printer.finish()
}
