//! The VM verbs.

use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming, async_trait};
use wire::proto::import_vm::Part;
use wire::proto::vms_server::Vms;
use wire::proto::{
    ClipboardAnswer, ClipboardDirections, ClipboardGrant, ClipboardQuestion, ClipboardWay,
    CreateVm, DestroyVm, Empty, ImportVm, ResizeVm, SetVm, SetVmReply, ShowWindows, StartVm,
    StopVm, Vm, VmList, VmLogsRequest, VmRef, VmState, VsockPath,
};

use super::world::{running_vm, stopped_vm};
use super::{ChunkStream, ProgressStream, Server, chunks, not_found};

/// Questions as they go out.
type QuestionStream =
    std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<ClipboardQuestion, Status>> + Send>>;

#[async_trait]
impl Vms for Server {
    type CreateStream = ProgressStream;
    type StartStream = ProgressStream;
    type SaveStream = ProgressStream;
    type StopStream = ProgressStream;
    type ResizeStream = ProgressStream;
    type ExportStream = ChunkStream;
    type ImportStream = ProgressStream;
    type LogsStream = ChunkStream;
    type ClipboardQuestionsStream = QuestionStream;

    async fn create(&self, request: Request<CreateVm>) -> Result<Response<ProgressStream>, Status> {
        let create = request.into_inner();
        let about = format!(
            "{} {} {} {}",
            create.vm, create.disk_bytes, create.cpus, create.memory_mib
        );
        self.called("Vms.Create", &about)?
            .vms
            .push(stopped_vm(&create.vm));
        Ok(self.stages(&[("disk", 12_000)]))
    }

    async fn start(&self, request: Request<StartVm>) -> Result<Response<ProgressStream>, Status> {
        let StartVm {
            vm: name, create, ..
        } = request.into_inner();
        let mut world = self.called("Vms.Start", &name)?;
        let mut report = Vec::new();
        if world.vm(&name).is_none() {
            if !create {
                return Err(not_found("VM", &name));
            }
            report.push(("disk", 12_000));
            world.vms.push(stopped_vm(&name));
        }
        let vm = world.vm(&name).expect("it was just added");
        if vm.state() != VmState::Running {
            report.extend([("kernel", 512_000), ("agent", 230_000), ("network", 15_000)]);
            *vm = running_vm(&name);
        }
        world.containers.entry(name).or_default();
        Ok(self.stages(&report))
    }

    async fn stop(&self, request: Request<StopVm>) -> Result<Response<ProgressStream>, Status> {
        let StopVm {
            vm: name,
            timeout_ms,
        } = request.into_inner();
        let mut world = self.called("Vms.Stop", &format!("{name} {timeout_ms}"))?;
        let vm = world.vm(&name).ok_or_else(|| not_found("VM", &name))?;
        *vm = stopped_vm(&name);
        Ok(self.stages(&[("stop", 40_000)]))
    }

    async fn save(&self, request: Request<VmRef>) -> Result<Response<ProgressStream>, Status> {
        let VmRef { vm: name } = request.into_inner();
        let mut world = self.called("Vms.Save", &name)?;
        let vm = world.vm(&name).ok_or_else(|| not_found("VM", &name))?;
        *vm = stopped_vm(&name);
        vm.set_state(VmState::Saved);
        Ok(self.stages(&[("save", 900_000)]))
    }

    async fn kill(&self, request: Request<VmRef>) -> Result<Response<Empty>, Status> {
        let VmRef { vm: name } = request.into_inner();
        let mut world = self.called("Vms.Kill", &name)?;
        *world.vm(&name).ok_or_else(|| not_found("VM", &name))? = stopped_vm(&name);
        Ok(Response::new(Empty {}))
    }

    async fn destroy(&self, request: Request<DestroyVm>) -> Result<Response<Empty>, Status> {
        let DestroyVm { vm: name, force } = request.into_inner();
        let mut world = self.called("Vms.Destroy", &format!("{name} {force}"))?;
        world.vms.retain(|vm| vm.name != name);
        Ok(Response::new(Empty {}))
    }

    async fn list(&self, _: Request<Empty>) -> Result<Response<VmList>, Status> {
        let world = self.called("Vms.List", "")?;
        Ok(Response::new(VmList {
            vms: world.vms.clone(),
        }))
    }

    async fn info(&self, request: Request<VmRef>) -> Result<Response<Vm>, Status> {
        let VmRef { vm: name } = request.into_inner();
        let mut world = self.called("Vms.Info", &name)?;
        let vm = world.vm(&name).ok_or_else(|| not_found("VM", &name))?;
        Ok(Response::new(vm.clone()))
    }

    async fn set(&self, request: Request<SetVm>) -> Result<Response<SetVmReply>, Status> {
        let SetVm {
            vm: name,
            cpus,
            memory_mib,
            clipboard,
        } = request.into_inner();
        let about = match clipboard {
            Some(asked) => {
                let mode = asked.mode().as_str_name();
                let ClipboardDirections {
                    to_guest, to_host, ..
                } = asked;
                format!("{name} to-guest={to_guest} to-host={to_host} {mode}")
            }
            None => name.clone(),
        };
        let mut world = self.called("Vms.Set", &about)?;
        let vm = world.vm(&name).ok_or_else(|| not_found("VM", &name))?;
        vm.cpus = cpus.unwrap_or(vm.cpus);
        vm.memory_mib = memory_mib.unwrap_or(vm.memory_mib);
        let waits = cpus.is_some() || memory_mib.is_some();
        let at_next_start = waits && vm.state() == VmState::Running;
        Ok(Response::new(SetVmReply { at_next_start }))
    }

    async fn resize(&self, request: Request<ResizeVm>) -> Result<Response<ProgressStream>, Status> {
        let ResizeVm {
            vm: name,
            disk_bytes,
        } = request.into_inner();
        let mut world = self.called("Vms.Resize", &name)?;
        world
            .vm(&name)
            .ok_or_else(|| not_found("VM", &name))?
            .disk_bytes = disk_bytes;
        Ok(self.stages(&[("resize", 7_000)]))
    }

    async fn grant_clipboard(
        &self,
        request: Request<ClipboardGrant>,
    ) -> Result<Response<Empty>, Status> {
        let grant = request.into_inner();
        let about = format!("{} {}", grant.vm, grant.way().as_str_name());
        let _world = self.called("Vms.GrantClipboard", &about)?;
        Ok(Response::new(Empty {}))
    }

    /// Asks once.
    async fn clipboard_questions(
        &self,
        request: Request<VmRef>,
    ) -> Result<Response<QuestionStream>, Status> {
        let _world = self.called("Vms.ClipboardQuestions", &request.into_inner().vm)?;
        let question = ClipboardQuestion {
            id: 7,
            way: ClipboardWay::ToGuest.into(),
            mime_type: "text/plain".to_owned(),
        };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(question)))))
    }

    async fn answer_clipboard(
        &self,
        request: Request<ClipboardAnswer>,
    ) -> Result<Response<Empty>, Status> {
        let ClipboardAnswer { vm, id, allow } = request.into_inner();
        let _world = self.called("Vms.AnswerClipboard", &format!("{vm} {id} {allow}"))?;
        Ok(Response::new(Empty {}))
    }

    async fn export(&self, request: Request<VmRef>) -> Result<Response<ChunkStream>, Status> {
        let VmRef { vm: name } = request.into_inner();
        let mut world = self.called("Vms.Export", &name)?;
        world.vm(&name).ok_or_else(|| not_found("VM", &name))?;
        Ok(chunks(&world.export))
    }

    async fn import(
        &self,
        request: Request<Streaming<ImportVm>>,
    ) -> Result<Response<ProgressStream>, Status> {
        let mut parts = request.into_inner();
        let mut name = String::new();
        let mut bytes = 0;
        while let Some(part) = parts.next().await {
            match part?.part {
                Some(Part::Vm(vm)) => name = vm.vm,
                Some(Part::Data(data)) => bytes += data.len(),
                None => return Err(Status::invalid_argument("an empty part")),
            }
        }
        self.called("Vms.Import", &format!("{name} {bytes}"))?
            .vms
            .push(stopped_vm(&name));
        Ok(self.stages(&[("import", 9_000)]))
    }

    async fn logs(&self, request: Request<VmLogsRequest>) -> Result<Response<ChunkStream>, Status> {
        let logs = request.into_inner();
        let about = format!("{} {} {}", logs.vm, logs.log().as_str_name(), logs.follow);
        let mut world = self.called("Vms.Logs", &about)?;
        world
            .vm(&logs.vm)
            .ok_or_else(|| not_found("VM", &logs.vm))?;
        Ok(chunks(&world.log))
    }

    async fn show_windows(&self, request: Request<ShowWindows>) -> Result<Response<Empty>, Status> {
        let ShowWindows { vm, compositor } = request.into_inner();
        drop(self.called("Vms.ShowWindows", &format!("{vm} {compositor}"))?);
        Ok(Response::new(Empty {}))
    }

    async fn vsock(&self, request: Request<VmRef>) -> Result<Response<VsockPath>, Status> {
        let world = self.called("Vms.Vsock", &request.into_inner().vm)?;
        let path = world
            .vsock
            .to_str()
            .expect("the test's folder is text")
            .to_owned();
        Ok(Response::new(VsockPath { path }))
    }
}
