//! The `Daemon` service, on the host: what runs here, and its end.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use wire::PROTOCOL;
use wire::proto::{Empty, Progress, VersionReply, daemon_server};

use super::{Replies, stream};
use crate::progress::Audience;
use crate::vm::{self, PATIENCE, Vms};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// What is ended first.
    pub(crate) vms: Vms,
    /// Set when the daemon is to end.
    pub(crate) end: CancellationToken,
}

#[tonic::async_trait]
impl daemon_server::Daemon for Service {
    type ShutdownStream = Replies<Progress>;

    async fn version(&self, _: Request<Empty>) -> Result<Response<VersionReply>, Status> {
        let build = self
            .vms
            .world()
            .image()
            .map_or(String::new(), |image| image.build().to_owned());
        Ok(Response::new(VersionReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            build,
            pid: std::process::id(),
        }))
    }

    async fn shutdown(
        &self,
        request: Request<Empty>,
    ) -> Result<Response<Self::ShutdownStream>, Status> {
        let id = link::request::id(request.metadata()).to_owned();
        let audience = Audience::default();
        let (listener, events) = mpsc::unbounded_channel();
        audience.join(listener);
        let (vms, end) = (self.vms.clone(), self.end.clone());
        tokio::spawn(async move {
            let stage = audience.stage("stop");
            stop_all(&vms, &id).await;
            stage.done();
            audience.finish(Ok(()));
            end.cancel();
        });
        Ok(stream(events))
    }
}

/// Ends all VMs politely, side by side, by the request `id`.
pub(crate) async fn stop_all(vms: &Vms, id: &str) {
    let mut stops = tokio::task::JoinSet::new();
    for name in vms.names() {
        let (vms, id) = (vms.clone(), id.to_owned());
        stops.spawn(async move {
            let stop = vm::Request::Stop(PATIENCE);
            if let Err(fault) = vms.done(&name, stop, &id).await {
                tracing::warn!(vm = %name, %fault, "cannot stop");
            }
        });
    }
    stops.join_all().await;
}
