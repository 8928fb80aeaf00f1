//! The `Vms` service, on the host.

use std::path::Path;
use std::time::Duration;

use spec::windows::{Direction, Mode, Modes};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use wire::proto::import_vm::Part;
use wire::proto::{
    Chunk, ClipboardAnswer, ClipboardDirections, ClipboardGrant, ClipboardMode, ClipboardQuestion,
    ClipboardWay, CreateVm, DestroyVm, Empty, ImportVm, Progress, ResizeVm, SetVm, SetVmReply,
    ShowWindows, StartVm, StopVm, Vm, VmList, VmLog, VmLogsRequest, VmRef, VsockPath, vms_server,
};
use wire::{Bytes, Fault, Kind, Mib};

use super::{Replies, logs, name, stream};
use crate::guest::windows::Asked;
use crate::vm::{self, PATIENCE, Vms, Wishes, report};

/// Messages of an export or import that wait for the slower side: at 1 MiB each, what a VM may cost meanwhile.
const CHUNKS: usize = 4;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Service(pub(crate) Vms);

#[tonic::async_trait]
impl vms_server::Vms for Service {
    type CreateStream = Replies<Progress>;
    type StartStream = Replies<Progress>;
    type SaveStream = Replies<Progress>;
    type StopStream = Replies<Progress>;
    type ResizeStream = Replies<Progress>;
    type ExportStream = Replies<Chunk>;
    type ImportStream = Replies<Progress>;
    type LogsStream = Replies<Chunk>;
    type ClipboardQuestionsStream = Replies<ClipboardQuestion>;

    async fn create(
        &self,
        request: Request<CreateVm>,
    ) -> Result<Response<Self::CreateStream>, Status> {
        let id = id(&request);
        let asked = request.into_inner();
        let wishes = Wishes {
            cpus: (asked.cpus != 0).then_some(asked.cpus),
            memory: (asked.memory_mib != 0).then_some(Mib(asked.memory_mib)),
            disk: (asked.disk_bytes != 0).then_some(Bytes(asked.disk_bytes)),
            clipboard: None,
        };
        Ok(stream(self.0.ask(
            &name(&asked.vm)?,
            vm::Request::Create(wishes),
            &id,
        )))
    }

    async fn start(
        &self,
        request: Request<StartVm>,
    ) -> Result<Response<Self::StartStream>, Status> {
        let id = id(&request);
        let StartVm {
            vm,
            create,
            engine,
            force_boot,
        } = request.into_inner();
        let engine = match engine.as_str() {
            "" => None,
            asked => Some(
                asked
                    .parse()
                    .map_err(|problem: String| Fault::new(Kind::Invalid, "E-ENGINE", problem))?,
            ),
        };
        let start = vm::Request::Start {
            create,
            engine,
            force_boot,
        };
        Ok(stream(self.0.ask(&name(&vm)?, start, &id)))
    }

    async fn save(&self, request: Request<VmRef>) -> Result<Response<Self::SaveStream>, Status> {
        let name = name(&request.get_ref().vm)?;
        Ok(stream(self.0.ask(&name, vm::Request::Save, &id(&request))))
    }

    async fn stop(&self, request: Request<StopVm>) -> Result<Response<Self::StopStream>, Status> {
        let id = id(&request);
        let StopVm { vm, timeout_ms } = request.into_inner();
        let patience = match timeout_ms {
            0 => PATIENCE,
            given => Duration::from_millis(given.into()),
        };
        Ok(stream(self.0.ask(
            &name(&vm)?,
            vm::Request::Stop(patience),
            &id,
        )))
    }

    async fn kill(&self, request: Request<VmRef>) -> Result<Response<Empty>, Status> {
        let name = name(&request.get_ref().vm)?;
        self.0.done(&name, vm::Request::Kill, &id(&request)).await?;
        Ok(Response::new(Empty {}))
    }

    async fn destroy(&self, request: Request<DestroyVm>) -> Result<Response<Empty>, Status> {
        let id = id(&request);
        let DestroyVm { vm, force } = request.into_inner();
        self.0
            .done(&name(&vm)?, vm::Request::Destroy { force }, &id)
            .await?;
        Ok(Response::new(Empty {}))
    }

    async fn list(&self, _: Request<Empty>) -> Result<Response<VmList>, Status> {
        let mut reports = tokio::task::JoinSet::new();
        for name in self.0.names() {
            let vms = self.0.clone();
            reports.spawn(async move { report::of(&vms, &name).await });
        }
        // One that was destroyed meanwhile is left out.
        let mut vms: Vec<Vm> = reports.join_all().await.into_iter().flatten().collect();
        vms.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Response::new(VmList { vms }))
    }

    async fn info(&self, request: Request<VmRef>) -> Result<Response<Vm>, Status> {
        let name = name(&request.get_ref().vm)?;
        Ok(Response::new(report::of(&self.0, &name).await?))
    }

    async fn set(&self, request: Request<SetVm>) -> Result<Response<SetVmReply>, Status> {
        let id = id(&request);
        let asked = request.into_inner();
        let name = name(&asked.vm)?;
        let wishes = Wishes {
            cpus: asked.cpus,
            memory: asked.memory_mib.map(Mib),
            disk: None,
            clipboard: asked.clipboard.map(modes),
        };
        let waits = wishes.cpus.is_some() || wishes.memory.is_some();
        self.0.done(&name, vm::Request::Set(wishes), &id).await?;
        let at_next_start = waits && self.0.view(&name)?.running.is_some();
        Ok(Response::new(SetVmReply { at_next_start }))
    }

    async fn resize(
        &self,
        request: Request<ResizeVm>,
    ) -> Result<Response<Self::ResizeStream>, Status> {
        let id = id(&request);
        let ResizeVm { vm, disk_bytes } = request.into_inner();
        Ok(stream(self.0.ask(
            &name(&vm)?,
            vm::Request::Resize(Bytes(disk_bytes)),
            &id,
        )))
    }

    async fn export(
        &self,
        request: Request<VmRef>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let name = name(&request.get_ref().vm)?;
        let (bytes, chunks) = mpsc::channel(CHUNKS);
        let mut events = self.0.ask(&name, vm::Request::Export(bytes), &id(&request));
        let data = ReceiverStream::new(chunks).map(|data| Ok(Chunk { data }));
        // The outcome is known once the last bytes are sent; only a failure has something to say.
        let outcome = async_stream(async move {
            while let Some(event) = events.recv().await {
                event?;
            }
            Ok(())
        });
        Ok(Response::new(Box::pin(data.chain(outcome))))
    }

    async fn import(
        &self,
        request: Request<Streaming<ImportVm>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        let id = id(&request);
        let mut parts = request.into_inner();
        let first = parts.message().await?.and_then(|message| message.part);
        let Some(Part::Vm(target)) = first else {
            let message = "the first message of an import names no VM";
            return Err(Fault::new(Kind::Invalid, "E-IMPORT", message).into());
        };
        let name = name(&target.vm)?;
        let (sender, bytes) = mpsc::channel(CHUNKS);
        let events = self.0.ask(&name, vm::Request::Import(bytes), &id);
        // Ends when the client has sent everything or went away, or when the import failed. A client that went
        // away closes the channel early, and the import finds its file truncated.
        tokio::spawn(async move {
            while let Ok(Some(ImportVm {
                part: Some(Part::Data(data)),
            })) = parts.message().await
            {
                if sender.send(data).await.is_err() {
                    break;
                }
            }
        });
        Ok(stream(events))
    }

    async fn logs(
        &self,
        request: Request<VmLogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let asked = request.get_ref();
        let name = name(&asked.vm)?;
        let log = match asked.log() {
            VmLog::All => self.0.logs(&name)?.vm,
            VmLog::Console => self.0.logs(&name)?.console,
            VmLog::Agent => {
                let running = self.0.running(&name)?;
                let follow = asked.follow;
                return logs::of_agent(&running.agent, request.metadata(), follow).await;
            }
        };
        Ok(Response::new(logs::of_file(log, asked.follow)))
    }

    async fn show_windows(&self, request: Request<ShowWindows>) -> Result<Response<Empty>, Status> {
        let ShowWindows { vm, compositor } = request.into_inner();
        let running = self.0.running(&name(&vm)?)?;
        running.windows.show_on(Path::new(&compositor)).await?;
        Ok(Response::new(Empty {}))
    }

    async fn grant_clipboard(
        &self,
        request: Request<ClipboardGrant>,
    ) -> Result<Response<Empty>, Status> {
        let grant = request.into_inner();
        let running = self.0.running(&name(&grant.vm)?)?;
        running.windows.grant(direction(grant.way())).await?;
        Ok(Response::new(Empty {}))
    }

    async fn clipboard_questions(
        &self,
        request: Request<VmRef>,
    ) -> Result<Response<Self::ClipboardQuestionsStream>, Status> {
        let running = self.0.running(&name(&request.get_ref().vm)?)?;
        let asked = BroadcastStream::new(running.windows.questions());
        // One that was missed is answered with no when it grows old.
        let questions = asked.filter_map(|asked| asked.ok().map(|asked| Ok(question(asked))));
        Ok(Response::new(Box::pin(questions)))
    }

    async fn answer_clipboard(
        &self,
        request: Request<ClipboardAnswer>,
    ) -> Result<Response<Empty>, Status> {
        let ClipboardAnswer { vm, id, allow } = request.into_inner();
        let running = self.0.running(&name(&vm)?)?;
        running.windows.answer(id, allow).await?;
        Ok(Response::new(Empty {}))
    }

    async fn vsock(&self, request: Request<VmRef>) -> Result<Response<VsockPath>, Status> {
        let running = self.0.running(&name(&request.get_ref().vm)?)?;
        let path = self.0.world().places.vsock(running.cid);
        // Our own folders come from the environment, which need not be UTF-8; the wire is.
        let path = path.into_os_string().into_string().map_err(|path| {
            let message = format!("the socket path {path:?} is not UTF-8");
            Fault::new(Kind::Invalid, "E-PATH", message)
        })?;
        Ok(Response::new(VsockPath { path }))
    }
}

fn modes(directions: ClipboardDirections) -> Modes {
    let where_allowed = match directions.mode() {
        ClipboardMode::OnFocus => Mode::OnFocus,
        ClipboardMode::Ask => Mode::Ask,
        ClipboardMode::Explicit => Mode::Explicit,
    };
    let mode = |allowed| if allowed { where_allowed } else { Mode::Off };
    Modes {
        to_guest: mode(directions.to_guest),
        to_host: mode(directions.to_host),
    }
}

fn direction(way: ClipboardWay) -> Direction {
    match way {
        ClipboardWay::ToGuest => Direction::ToGuest,
        ClipboardWay::ToHost => Direction::ToHost,
    }
}

fn question(asked: Asked) -> ClipboardQuestion {
    let way = match asked.direction {
        Direction::ToGuest => ClipboardWay::ToGuest,
        Direction::ToHost => ClipboardWay::ToHost,
    };
    ClipboardQuestion {
        id: asked.id,
        way: way.into(),
        mime_type: asked.mime,
    }
}

/// Returns the id of a request.
fn id<T>(request: &Request<T>) -> String {
    link::request::id(request.metadata()).to_owned()
}

/// Returns a stream that has nothing but, at its end, the failure of `outcome`.
fn async_stream<T: Send + 'static>(
    outcome: impl Future<Output = Result<(), Status>> + Send + 'static,
) -> impl tokio_stream::Stream<Item = Result<T, Status>> + Send {
    let outcome = futures_util::stream::once(outcome);
    outcome.filter_map(|outcome| outcome.err().map(Err))
}
