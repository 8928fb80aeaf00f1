//! The container verbs of the VM that the metadata names.

use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming, async_trait};
use wire::proto::containers_server::Containers;
use wire::proto::create_container::Part;
use wire::proto::{
    Container, ContainerList, ContainerLogs, ContainerRef, ContainerState, CopyContainer,
    CreateContainer, DeleteContainer, Empty, RenameContainer, Snapshot, SnapshotList, SnapshotRef,
    StartContainer, StopContainer,
};
use wire::{Fault, Kind};

use super::world::container;
use super::{ChunkStream, ProgressStream, Server, chunks, not_found};

/// Returns the VM that the call is for.
fn vm<T>(request: &Request<T>) -> Result<String, Status> {
    Ok(link::request::vm(request.metadata())?.into())
}

#[async_trait]
impl Containers for Server {
    type CreateStream = ProgressStream;
    type StartStream = ProgressStream;
    type CopyStream = ProgressStream;
    type ExportStream = ChunkStream;
    type LogsStream = ChunkStream;

    async fn create(
        &self,
        request: Request<Streaming<CreateContainer>>,
    ) -> Result<Response<ProgressStream>, Status> {
        let vm = vm(&request)?;
        let mut parts = request.into_inner();
        let first = parts.next().await.transpose()?.and_then(|first| first.part);
        let Some(Part::Header(header)) = first else {
            return Err(Status::invalid_argument("the first part is no header"));
        };
        let mut files: Vec<Vec<u8>> = Vec::new();
        while let Some(part) = parts.next().await {
            let Some(Part::File(chunk)) = part?.part else {
                return Err(Status::invalid_argument("a second header"));
            };
            let index = chunk.index as usize;
            files.resize(files.len().max(index + 1), Vec::new());
            files[index].extend(chunk.data);
        }
        let mut world = self.called("Containers.Create", &format!("{vm} {}", header.container))?;
        let made = container(&header.container, ContainerState::Stopped);
        world.containers.entry(vm).or_default().push(made);
        world.made.push((header, files));
        Ok(self.stages(&[("create", 33_000)]))
    }

    async fn start(
        &self,
        request: Request<StartContainer>,
    ) -> Result<Response<ProgressStream>, Status> {
        let vm = vm(&request)?;
        let name = request.into_inner().container;
        let mut world = self.called("Containers.Start", &format!("{vm} {name}"))?;
        let found = world
            .container(&vm, &name)
            .ok_or_else(|| not_found("container", &name))?;
        if found.state() == ContainerState::Running {
            return Ok(self.stages(&[]));
        }
        *found = container(&name, ContainerState::Running);
        Ok(self.stages(&[("container", 310_000)]))
    }

    async fn stop(&self, request: Request<StopContainer>) -> Result<Response<Empty>, Status> {
        let vm = vm(&request)?;
        let StopContainer {
            container: name,
            timeout_ms,
            kill,
        } = request.into_inner();
        let mut world = self.called(
            "Containers.Stop",
            &format!("{vm} {name} {timeout_ms} {kill}"),
        )?;
        let found = world
            .container(&vm, &name)
            .ok_or_else(|| not_found("container", &name))?;
        found.set_state(ContainerState::Stopped);
        Ok(Response::new(Empty {}))
    }

    async fn delete(&self, request: Request<DeleteContainer>) -> Result<Response<Empty>, Status> {
        let vm = vm(&request)?;
        let DeleteContainer {
            container: name,
            force,
        } = request.into_inner();
        let mut world = self.called("Containers.Delete", &format!("{vm} {name} {force}"))?;
        let found = world
            .container(&vm, &name)
            .ok_or_else(|| not_found("container", &name))?;
        if found.state() == ContainerState::Running && !force {
            let message = format!("container {name} runs");
            return Err(Fault::new(Kind::Busy, "E-RUNNING", message).into());
        }
        world
            .containers
            .entry(vm)
            .or_default()
            .retain(|container| container.name != name);
        Ok(Response::new(Empty {}))
    }

    async fn rename(&self, request: Request<RenameContainer>) -> Result<Response<Empty>, Status> {
        let vm = vm(&request)?;
        let RenameContainer {
            container: name,
            new_name,
        } = request.into_inner();
        let mut world = self.called("Containers.Rename", &format!("{vm} {name} {new_name}"))?;
        let found = world
            .container(&vm, &name)
            .ok_or_else(|| not_found("container", &name))?;
        found.name = new_name;
        Ok(Response::new(Empty {}))
    }

    async fn copy(
        &self,
        request: Request<CopyContainer>,
    ) -> Result<Response<ProgressStream>, Status> {
        let vm = vm(&request)?;
        let CopyContainer {
            container: name,
            new_name,
        } = request.into_inner();
        let mut world = self.called("Containers.Copy", &format!("{vm} {name} {new_name}"))?;
        world
            .container(&vm, &name)
            .ok_or_else(|| not_found("container", &name))?;
        let copy = container(&new_name, ContainerState::Stopped);
        world.containers.entry(vm).or_default().push(copy);
        Ok(self.stages(&[("copy", 5_000)]))
    }

    async fn list(&self, request: Request<Empty>) -> Result<Response<ContainerList>, Status> {
        let vm = vm(&request)?;
        let world = self.called("Containers.List", &vm)?;
        let containers = world.containers.get(&vm).cloned().unwrap_or_default();
        Ok(Response::new(ContainerList { containers }))
    }

    async fn info(&self, request: Request<ContainerRef>) -> Result<Response<Container>, Status> {
        let vm = vm(&request)?;
        let name = request.into_inner().container;
        let mut world = self.called("Containers.Info", &format!("{vm} {name}"))?;
        let found = world
            .container(&vm, &name)
            .ok_or_else(|| not_found("container", &name))?;
        Ok(Response::new(found.clone()))
    }

    async fn snapshot(&self, request: Request<SnapshotRef>) -> Result<Response<Empty>, Status> {
        let SnapshotRef {
            container,
            snapshot: name,
        } = request.into_inner();
        let mut world = self.called("Containers.Snapshot", &format!("{container} {name}"))?;
        let created_s = world.snapshots.first().map_or(0, |first| first.created_s);
        world.snapshots.push(Snapshot { name, created_s });
        Ok(Response::new(Empty {}))
    }

    async fn restore(&self, request: Request<SnapshotRef>) -> Result<Response<Empty>, Status> {
        let SnapshotRef {
            container,
            snapshot: name,
        } = request.into_inner();
        let world = self.called("Containers.Restore", &format!("{container} {name}"))?;
        match world.snapshots.iter().any(|snapshot| snapshot.name == name) {
            true => Ok(Response::new(Empty {})),
            false => Err(not_found("snapshot", &name)),
        }
    }

    async fn list_snapshots(
        &self,
        request: Request<ContainerRef>,
    ) -> Result<Response<SnapshotList>, Status> {
        let name = request.into_inner().container;
        let world = self.called("Containers.ListSnapshots", &name)?;
        Ok(Response::new(SnapshotList {
            snapshots: world.snapshots.clone(),
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<SnapshotRef>,
    ) -> Result<Response<Empty>, Status> {
        let SnapshotRef {
            container,
            snapshot: name,
        } = request.into_inner();
        let mut world = self.called("Containers.DeleteSnapshot", &format!("{container} {name}"))?;
        world.snapshots.retain(|snapshot| snapshot.name != name);
        Ok(Response::new(Empty {}))
    }

    async fn export(
        &self,
        request: Request<ContainerRef>,
    ) -> Result<Response<ChunkStream>, Status> {
        let vm = vm(&request)?;
        let name = request.into_inner().container;
        let mut world = self.called("Containers.Export", &format!("{vm} {name}"))?;
        world
            .container(&vm, &name)
            .ok_or_else(|| not_found("container", &name))?;
        Ok(chunks(&world.export))
    }

    async fn logs(&self, request: Request<ContainerLogs>) -> Result<Response<ChunkStream>, Status> {
        let vm = vm(&request)?;
        let ContainerLogs {
            container: name,
            follow,
        } = request.into_inner();
        let mut world = self.called("Containers.Logs", &format!("{vm} {name} {follow}"))?;
        world
            .container(&vm, &name)
            .ok_or_else(|| not_found("container", &name))?;
        Ok(chunks(&world.log))
    }
}
