//! The host's calls about the VM itself, each handed to the module that does it.

use std::path::PathBuf;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::Instrument;
use wire::proto::maitred_server::Maitred;
use wire::proto::{
    Chunk, DiskFigures, Empty, PowerOffRequest, Time, VmConfiguration, VmConfigured, VmFigures,
    VmLogs,
};

use crate::agent::{Calls, microseconds};
use crate::{clock, disk, figures, log};

/// A stream of at most this many chunks waits for a slow reader before the work behind it does.
const CHUNKS_WAITING: usize = 4;

/// What a call that sends chunks returns.
pub(crate) type Chunks =
    std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<Chunk, Status>> + Send>>;

/// Returns a span that carries the request's id, and leaves a line of it in the log.
pub(crate) fn span<T>(act: &'static str, request: &Request<T>) -> tracing::Span {
    let span = tracing::info_span!("call", act, request = link::request::id(request.metadata()));
    span.in_scope(|| tracing::info!("asked"));
    span
}

/// Returns a sender of chunks and the stream that carries them to the host.
pub(crate) fn chunks() -> (mpsc::Sender<Result<Vec<u8>, Status>>, Chunks) {
    let (out, chunks) = mpsc::channel(CHUNKS_WAITING);
    let chunks =
        ReceiverStream::new(chunks).map(|chunk: Result<_, _>| chunk.map(|data| Chunk { data }));
    (out, Box::pin(chunks))
}

/// Streams the log at `path`.
pub(crate) fn log_stream(path: PathBuf, follow: bool) -> Chunks {
    let (out, stream) = chunks();
    let (lines, mut waiting) = mpsc::channel(CHUNKS_WAITING);
    tokio::spawn(async move {
        let reading = tokio::spawn(log::send(path, follow, lines));
        while let Some(chunk) = waiting.recv().await {
            if out.send(Ok(chunk)).await.is_err() {
                return;
            }
        }
        if let Ok(Err(fault)) = reading.await {
            let _ = out.send(Err(fault.into())).await;
        }
    });
    stream
}

#[tonic::async_trait]
impl Maitred for Calls {
    type LogsStream = Chunks;

    async fn configure(
        &self,
        request: Request<VmConfiguration>,
    ) -> Result<Response<VmConfigured>, Status> {
        let span = span("configure", &request);
        let configured = self
            .0
            .configure(request.into_inner())
            .instrument(span)
            .await?;
        self.0.containers.start_marked(&self.0);
        Ok(Response::new(configured))
    }

    async fn figures(&self, _: Request<Empty>) -> Result<Response<VmFigures>, Status> {
        let mut figures = figures::read(disk::figures().ok())?;
        figures.kernel_to_init_us = microseconds(self.0.boot.kernel_to_init);
        figures.init_to_ready_us = self.0.init_to_ready.get().copied().map_or(0, microseconds);
        Ok(Response::new(figures))
    }

    async fn set_time(&self, request: Request<Time>) -> Result<Response<Empty>, Status> {
        clock::set(request.into_inner())?;
        Ok(Response::new(Empty {}))
    }

    async fn grow_disk(&self, _: Request<Empty>) -> Result<Response<DiskFigures>, Status> {
        self.0.disk.mounted().await?;
        Ok(Response::new(disk::grow()?))
    }

    async fn logs(&self, request: Request<VmLogs>) -> Result<Response<Chunks>, Status> {
        Ok(Response::new(log_stream(
            log::AGENT.into(),
            request.into_inner().follow,
        )))
    }

    async fn power_off(
        &self,
        request: Request<PowerOffRequest>,
    ) -> Result<Response<Empty>, Status> {
        let span = span("power off", &request);
        self.0
            .power_off(request.into_inner())
            .instrument(span)
            .await;
        Ok(Response::new(Empty {}))
    }
}
