//! `testudo logs`: a container's console, or its VM's logs.

use clap::Args;
use wire::proto::{ContainerLogs, VmLog};
use wire::{ContainerName, Fault, Kind};

use super::Call;
use crate::ui::LogPrinter;
use crate::{completion, options, vmc};

/// Print the log of a container or of its VM
///
/// Without an option: what the container's init and services wrote to their console. On a terminal, control
/// sequences in it are shown and not obeyed.
#[derive(Debug, Args)]
pub(super) struct Logs {
    /// The container (default: the default one)
    #[arg(value_parser = options::container, add = completion::containers())]
    name: Option<ContainerName>,
    #[command(flatten)]
    log: vmc::logs::Which,
    /// Go on printing what is added
    #[arg(short, long)]
    follow: bool,
    /// Only lines of the request with this id
    #[arg(long, value_name = "ID")]
    request: Option<String>,
}

impl Logs {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let client = call.client().await?;
        // A request is followed through the VM's log: the container's console does not know it.
        let of_vm = self
            .log
            .chosen()
            .or(self.request.is_some().then_some(VmLog::All));
        if let Some(log) = of_vm {
            let printer = LogPrinter::new(call.ui, self.request);
            return vmc::logs::print(&client, &vm, (log, self.follow), printer).await;
        }
        client.info(&vm).await?;
        if !client.runs(&vm).await? {
            return Err(
                Fault::new(Kind::Busy, "E-NOT-RUNNING", format!("VM {vm} does not run"))
                    .cause("its containers' logs lie on its disk")
                    .hint(format!("the VM's own log: vmc logs {vm}")),
            );
        }
        let name = call.container(self.name)?;
        let logs = ContainerLogs {
            container: name.to_string(),
            follow: self.follow,
        };
        let mut stream = match client.containers(&vm).logs(logs).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Err(client.known_containers(status.into(), &vm, &name).await),
        };
        let mut printer = LogPrinter::new(call.ui, None);
        while let Some(chunk) = stream.message().await? {
            printer.push(&chunk.data)?;
        }
        printer.finish()
    }
}
