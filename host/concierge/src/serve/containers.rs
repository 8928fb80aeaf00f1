//! The `Containers` service as concierge offers it, on the host: the VM named in the metadata is started when the
//! call changes something, and the call goes on to its agent. Nothing is interpreted here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use wire::VmName;
use wire::proto::containers_client::ContainersClient;
use wire::proto::{
    Chunk, Container, ContainerList, ContainerLogs, ContainerRef, CopyContainer, CreateContainer,
    DeleteContainer, Empty, Progress, RenameContainer, SnapshotList, SnapshotRef, StartContainer,
    StopContainer, containers_server,
};

use super::Replies;
use crate::guest::agent::{Tagged, faithful};
use crate::vm::{self, Vms};
use link::request::{self, Tag};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Service(pub(crate) Vms);

type Client = ContainersClient<Tagged>;

impl Service {
    /// Returns a client of the agent in the VM that is named, if that runs.
    fn running(&self, metadata: &MetadataMap) -> Result<Client, Status> {
        let name = request::vm(metadata)?;
        let tag = Tag::new().following(metadata);
        Ok(self.0.running(&name)?.agent.containers(tag)?)
    }

    /// As [`Service::running`], but starts the VM; the default one is created too.
    async fn started(&self, metadata: &MetadataMap) -> Result<Client, Status> {
        let name = request::vm(metadata)?;
        let id = request::id(metadata);
        self.0.done(&name, self.start(&name), id).await?;
        self.running(metadata)
    }

    fn start(&self, name: &VmName) -> vm::Request {
        let create = *name == self.0.world().config.default_vm();
        vm::Request::Start {
            create,
            engine: None,
            force_boot: false,
        }
    }

    /// Streams the VM's start and then what `call` streams.
    async fn after_start<F, C>(
        &self,
        metadata: MetadataMap,
        call: C,
    ) -> Result<Response<Replies<Progress>>, Status>
    where
        C: FnOnce(Client) -> F + Send + 'static,
        F: Future<Output = Result<Response<Streaming<Progress>>, Status>> + Send + 'static,
    {
        let name = request::vm(&metadata)?;
        let events = self.0.ask(&name, self.start(&name), request::id(&metadata));
        let start = UnboundedReceiverStream::new(events);
        // The call is made when the start's events have ended well; a failed start ends the stream.
        let failed = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&failed);
        let start = start.map(move |event| {
            seen.fetch_or(event.is_err(), Ordering::Relaxed);
            event
        });
        let service = self.clone();
        let rest = async move {
            if failed.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let client = service.running(&metadata)?;
            call(client)
                .await
                .map(|answer| Some(answer.into_inner()))
                .map_err(honest)
        };
        let rest = futures_util::stream::once(rest);
        let rest = futures_util::StreamExt::flat_map(rest, |opened| -> Replies<Progress> {
            match opened {
                Ok(Some(events)) => Box::pin(events.map(|event| event.map_err(honest))),
                Ok(None) => Box::pin(tokio_stream::empty()),
                Err(status) => Box::pin(tokio_stream::once(Err(status))),
            }
        });
        Ok(Response::new(Box::pin(start.chain(rest))))
    }
}

/// A client's stream on its way to the guest. A client that breaks off must not look like one that has sent
/// everything: the stream then has no end, and is reset together with the call.
struct Whole<T> {
    parts: Streaming<T>,
    broken: bool,
}

impl<T> Stream for Whole<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if self.broken {
            return Poll::Pending;
        }
        match ready!(Pin::new(&mut self.parts).poll_next(context)) {
            Some(Ok(part)) => Poll::Ready(Some(part)),
            None => Poll::Ready(None),
            Some(Err(_)) => {
                self.broken = true;
                Poll::Pending
            }
        }
    }
}

/// A guest's status with nothing in it that a terminal obeys.
fn honest(status: Status) -> Status {
    faithful(status).into()
}

fn relayed<T: Send + 'static>(
    answer: Result<Response<Streaming<T>>, Status>,
) -> Result<Response<Replies<T>>, Status> {
    let events = answer.map_err(honest)?.into_inner();
    Ok(Response::new(Box::pin(
        events.map(|event| event.map_err(honest)),
    )))
}

#[tonic::async_trait]
impl containers_server::Containers for Service {
    type CreateStream = Replies<Progress>;
    type StartStream = Replies<Progress>;
    type CopyStream = Replies<Progress>;
    type ExportStream = Replies<Chunk>;
    type LogsStream = Replies<Chunk>;

    async fn create(
        &self,
        request: Request<Streaming<CreateContainer>>,
    ) -> Result<Response<Self::CreateStream>, Status> {
        let (metadata, _, parts) = request.into_parts();
        let parts = Whole {
            parts,
            broken: false,
        };
        self.after_start(
            metadata,
            |mut client| async move { client.create(parts).await },
        )
        .await
    }

    async fn start(
        &self,
        request: Request<StartContainer>,
    ) -> Result<Response<Self::StartStream>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.after_start(
            metadata,
            |mut client| async move { client.start(message).await },
        )
        .await
    }

    async fn copy(
        &self,
        request: Request<CopyContainer>,
    ) -> Result<Response<Self::CopyStream>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.after_start(
            metadata,
            |mut client| async move { client.copy(message).await },
        )
        .await
    }

    async fn stop(&self, request: Request<StopContainer>) -> Result<Response<Empty>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.running(&metadata)?.stop(message).await.map_err(honest)
    }

    async fn delete(&self, request: Request<DeleteContainer>) -> Result<Response<Empty>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.started(&metadata)
            .await?
            .delete(message)
            .await
            .map_err(honest)
    }

    async fn rename(&self, request: Request<RenameContainer>) -> Result<Response<Empty>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.started(&metadata)
            .await?
            .rename(message)
            .await
            .map_err(honest)
    }

    async fn list(&self, request: Request<Empty>) -> Result<Response<ContainerList>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.running(&metadata)?.list(message).await.map_err(honest)
    }

    async fn info(&self, request: Request<ContainerRef>) -> Result<Response<Container>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.running(&metadata)?.info(message).await.map_err(honest)
    }

    async fn snapshot(&self, request: Request<SnapshotRef>) -> Result<Response<Empty>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.started(&metadata)
            .await?
            .snapshot(message)
            .await
            .map_err(honest)
    }

    async fn restore(&self, request: Request<SnapshotRef>) -> Result<Response<Empty>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.started(&metadata)
            .await?
            .restore(message)
            .await
            .map_err(honest)
    }

    async fn list_snapshots(
        &self,
        request: Request<ContainerRef>,
    ) -> Result<Response<SnapshotList>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.running(&metadata)?
            .list_snapshots(message)
            .await
            .map_err(honest)
    }

    async fn delete_snapshot(
        &self,
        request: Request<SnapshotRef>,
    ) -> Result<Response<Empty>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.started(&metadata)
            .await?
            .delete_snapshot(message)
            .await
            .map_err(honest)
    }

    async fn export(
        &self,
        request: Request<ContainerRef>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let (metadata, _, message) = request.into_parts();
        relayed(self.started(&metadata).await?.export(message).await)
    }

    async fn logs(
        &self,
        request: Request<ContainerLogs>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let (metadata, _, message) = request.into_parts();
        relayed(self.running(&metadata)?.logs(message).await)
    }
}

#[cfg(test)]
mod tests {
    use wire::Fault;

    use super::*;

    #[test]
    fn a_guests_status_stays_a_fault() {
        let fault = Fault::new(
            wire::Kind::NotFound,
            "E-CONTAINER-NOTFOUND",
            "no\x1b]0;x\x07",
        );
        let back = Fault::from(honest(fault.into()));
        assert_eq!(back.parts().code, "E-CONTAINER-NOTFOUND");
        assert_eq!(back.parts().message, "no]0;x");
    }
}
