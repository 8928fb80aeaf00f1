//! The daemon's own verbs.

use tonic::{Request, Response, Status, async_trait};
use wire::PROTOCOL;
use wire::proto::daemon_server::Daemon;
use wire::proto::{Empty, VersionReply};

use super::{ProgressStream, Server};

#[async_trait]
impl Daemon for Server {
    type ShutdownStream = ProgressStream;

    async fn version(&self, _: Request<Empty>) -> Result<Response<VersionReply>, Status> {
        // Every client asks for it when it connects, so the call is not noted.
        Ok(Response::new(VersionReply {
            version: "0.1.0".to_owned(),
            protocol: PROTOCOL,
            build: "fake".to_owned(),
            pid: 1,
        }))
    }

    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<ProgressStream>, Status> {
        let mut world = self.called("Daemon.Shutdown", "")?;
        for vm in &mut world.vms {
            *vm = super::world::stopped_vm(&vm.name);
        }
        Ok(self.stages(&[("stop", 40_000)]))
    }
}
