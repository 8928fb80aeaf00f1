//! `testudo version`: of the client, and of the daemon if it runs.

use clap::Args;
use wire::{Fault, PROTOCOL};

use super::Call;
use crate::client::Client;

/// Show the versions of the client and of a running daemon
#[derive(Debug, Args)]
pub(super) struct Version {}

impl Version {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let own = env!("CARGO_PKG_VERSION");
        let daemon = Client::connect(&call.places).await?;
        if call.ui.json() {
            let daemon = daemon.as_ref().map(Client::version).map(|daemon| {
                serde_json::json!({
                    "version": daemon.version,
                    "protocol": daemon.protocol,
                    "build": daemon.build,
                    "pid": daemon.pid,
                })
            });
            let client = serde_json::json!({ "version": own, "protocol": PROTOCOL });
            return call.ui.object(
                "version",
                &serde_json::json!({ "client": client, "daemon": daemon }),
            );
        }
        call.ui.line(&format!("testudo {own} (wire {PROTOCOL})"))?;
        match daemon.as_ref().map(Client::version) {
            None => call.ui.note("the daemon does not run"),
            Some(daemon) => call.ui.line(&format!(
                "concierge {} (wire {}, build {}, process {})",
                daemon.version, daemon.protocol, daemon.build, daemon.pid
            ))?,
        }
        Ok(())
    }
}
