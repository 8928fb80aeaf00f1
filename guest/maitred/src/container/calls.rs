//! The host's calls about containers: names are parsed here, once, and each call is handed to its verb.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;
use wire::proto::containers_server::Containers as Service;
use wire::proto::create_container::Part;
use wire::proto::{
    Container, ContainerList, ContainerLogs, ContainerRef, CopyContainer, CreateContainer,
    DeleteContainer, Empty, Progress, RenameContainer, SnapshotList, SnapshotRef, StartContainer,
    StopContainer,
};
use wire::{ContainerName, Fault, Kind, SnapshotName};

use super::create::Order;
use super::import::{self, Incoming};
use super::progress::Reporter;
use super::{export, stop};
use crate::agent::{Agent, Calls};
use crate::calls::{Chunks, chunks, log_stream, span};

/// Stages are few; a slow reader holds up the verb after this many.
const PROGRESS_WAITING: usize = 16;

type Steps = ReceiverStream<Result<Progress, Status>>;
type Answer<T> = Result<Response<T>, Status>;

/// Reads a container's name.
pub(super) fn container(name: &str) -> Result<ContainerName, Fault> {
    name.parse().map_err(|error| {
        Fault::new(Kind::Invalid, "E-NAME", "the container's name is not one").because(&error)
    })
}

fn snapshot(reference: &SnapshotRef) -> Result<(ContainerName, SnapshotName), Fault> {
    let snapshot = reference.snapshot.parse().map_err(|error| {
        Fault::new(Kind::Invalid, "E-NAME", "the snapshot's name is not one").because(&error)
    })?;
    Ok((container(&reference.container)?, snapshot))
}

/// Runs a long verb on its own, so that it goes on when the host stops listening, and streams its progress.
fn steps<F>(verb: impl FnOnce(Reporter) -> F) -> Response<Steps>
where
    F: Future<Output = Result<(), Fault>> + Send + 'static,
{
    let (out, steps) = mpsc::channel(PROGRESS_WAITING);
    let work = verb(Reporter(out.clone()));
    let work = async move {
        if let Err(fault) = work.await {
            tracing::warn!(causes = ?fault.parts().causes, "{fault}");
            let _ = out.send(Err(fault.into())).await;
        }
    };
    tokio::spawn(work.in_current_span());
    Response::new(ReceiverStream::new(steps))
}

impl Calls {
    /// Runs a verb on the mounted disk, on its own, so that it comes to its end when the host stops listening: one that is
    /// left half-way would let the next verb in while it still works on the disk.
    async fn whole<F>(
        &self,
        span: tracing::Span,
        verb: impl FnOnce(Arc<Agent>) -> F + Send + 'static,
    ) -> Answer<Empty>
    where
        F: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let agent = self.0.clone();
        let work = async move {
            agent.disk.mounted().await?;
            verb(agent).await
        };
        let done = tokio::spawn(work.instrument(span)).await;
        done.map_err(|error| Fault::internal(&error))??;
        Ok(Response::new(Empty {}))
    }
}

#[tonic::async_trait]
impl Service for Calls {
    type CreateStream = Steps;
    type StartStream = Steps;
    type CopyStream = Steps;
    type ExportStream = Chunks;
    type LogsStream = Chunks;

    async fn create(&self, request: Request<Streaming<CreateContainer>>) -> Answer<Steps> {
        let _span = span("create", &request).entered();
        let agent = self.0.clone();
        let mut parts = request.into_inner();
        Ok(steps(|report| async move {
            agent.disk.mounted().await?;
            let Some(CreateContainer {
                part: Some(Part::Header(header)),
            }) = parts.message().await?
            else {
                let message = "the first part of a new container is not its header";
                return Err(Fault::new(Kind::Invalid, "E-INVALID", message));
            };
            let order = Order::parse(header)?;
            let (feed, incoming) = Incoming::new();
            let feeding = tokio::spawn(import::feed(parts, feed));
            let created = agent.containers.create(order, incoming, &report).await;
            feeding.abort();
            created
        }))
    }

    async fn start(&self, request: Request<StartContainer>) -> Answer<Steps> {
        let _span = span("start", &request).entered();
        let agent = self.0.clone();
        let name = container(&request.into_inner().container)?;
        Ok(steps(|report| async move {
            agent.disk.mounted().await?;
            let stage = report.stage("container").await;
            agent.bridged().await?;
            agent.containers.start(&name).await?;
            agent.translated().await?;
            stage.done().await;
            Ok(())
        }))
    }

    async fn stop(&self, request: Request<StopContainer>) -> Answer<Empty> {
        let span = span("stop", &request);
        let StopContainer {
            container: name,
            timeout_ms,
            kill,
        } = request.into_inner();
        let timeout = match (kill, timeout_ms) {
            (true, _) => Duration::ZERO,
            (false, 0) => stop::TIMEOUT,
            (false, ms) => Duration::from_millis(u64::from(ms)),
        };
        let name = container(&name)?;
        self.whole(span, move |agent| async move {
            agent.containers.stop(&name, timeout).await
        })
        .await
    }

    async fn delete(&self, request: Request<DeleteContainer>) -> Answer<Empty> {
        let span = span("delete", &request);
        let DeleteContainer {
            container: name,
            force,
        } = request.into_inner();
        let name = container(&name)?;
        self.whole(span, move |agent| async move {
            agent.containers.delete(&name, force).await
        })
        .await
    }

    async fn rename(&self, request: Request<RenameContainer>) -> Answer<Empty> {
        let span = span("rename", &request);
        let RenameContainer {
            container: name,
            new_name,
        } = request.into_inner();
        let (name, new) = (container(&name)?, container(&new_name)?);
        self.whole(span, move |agent| async move {
            agent.containers.rename(&name, &new).await
        })
        .await
    }

    async fn copy(&self, request: Request<CopyContainer>) -> Answer<Steps> {
        let _span = span("copy", &request).entered();
        let agent = self.0.clone();
        let CopyContainer {
            container: name,
            new_name,
        } = request.into_inner();
        let (name, new) = (container(&name)?, container(&new_name)?);
        Ok(steps(|report| async move {
            agent.disk.mounted().await?;
            agent.containers.copy(&name, &new, &report).await
        }))
    }

    async fn list(&self, _: Request<Empty>) -> Answer<ContainerList> {
        self.0.disk.mounted().await?;
        Ok(Response::new(ContainerList {
            containers: self.0.containers.list(),
        }))
    }

    async fn info(&self, request: Request<ContainerRef>) -> Answer<Container> {
        self.0.disk.mounted().await?;
        let name = container(&request.into_inner().container)?;
        Ok(Response::new(self.0.containers.info(&name)?))
    }

    async fn snapshot(&self, request: Request<SnapshotRef>) -> Answer<Empty> {
        let span = span("snapshot", &request);
        let (name, snapshot) = snapshot(request.get_ref())?;
        self.whole(span, move |agent| async move {
            agent.containers.snapshot(&name, &snapshot).await
        })
        .await
    }

    async fn restore(&self, request: Request<SnapshotRef>) -> Answer<Empty> {
        let span = span("restore", &request);
        let (name, snapshot) = snapshot(request.get_ref())?;
        self.whole(span, move |agent| async move {
            agent.containers.restore(&name, &snapshot).await
        })
        .await
    }

    async fn list_snapshots(&self, request: Request<ContainerRef>) -> Answer<SnapshotList> {
        self.0.disk.mounted().await?;
        let name = container(&request.into_inner().container)?;
        Ok(Response::new(SnapshotList {
            snapshots: self.0.containers.snapshots(&name)?,
        }))
    }

    async fn delete_snapshot(&self, request: Request<SnapshotRef>) -> Answer<Empty> {
        let span = span("delete snapshot", &request);
        let (name, snapshot) = snapshot(request.get_ref())?;
        self.whole(span, move |agent| async move {
            agent.containers.delete_snapshot(&name, &snapshot).await
        })
        .await
    }

    async fn export(&self, request: Request<ContainerRef>) -> Answer<Chunks> {
        let _span = span("export", &request).entered();
        let name = container(&request.into_inner().container)?;
        let (out, stream) = chunks();
        let agent = self.0.clone();
        let work = async move {
            let exported = match agent.disk.mounted().await {
                Ok(()) => {
                    agent
                        .containers
                        .export(&name, export::Sink::new(out.clone()))
                        .await
                }
                Err(fault) => Err(fault),
            };
            if let Err(fault) = exported {
                let _ = out.send(Err(fault.into())).await;
            }
        };
        tokio::spawn(work.in_current_span());
        Ok(Response::new(stream))
    }

    async fn logs(&self, request: Request<ContainerLogs>) -> Answer<Chunks> {
        self.0.disk.mounted().await?;
        let ContainerLogs {
            container: name,
            follow,
        } = request.into_inner();
        let name = container(&name)?;
        let home = self.0.containers.home(&name);
        if !home.exists() {
            return Err(super::missing(&name).into());
        }
        Ok(Response::new(log_stream(home.console(), follow)))
    }
}
