//! Work on a VM's disk and settings, on the host: create, resize, export, import, destroy, set.

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use spec::vm::{MAX_MEMORY, MAX_VCPUS, MIN_MEMORY};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wire::{Bytes, Fault, Kind, VmName};

use super::Wishes;
use super::machine::DataDisk;
use crate::disk::{Settings, export, import};
use crate::guest::agent::Agent;
use crate::guest::windows::Windows;
use crate::progress::Audience;
use crate::world::World;

/// Exported bytes in one message.
const CHUNK: usize = 1 << 20;

/// One piece of work: for which VM, who hears about it, and how it is called off.
#[derive(Debug)]
pub(super) struct Order {
    /// The daemon's surroundings.
    pub(super) world: Arc<World>,
    /// The VM.
    pub(super) name: VmName,
    /// Who hears about it.
    pub(super) audience: Audience,
    /// Set when it is to be undone.
    pub(super) cancel: CancellationToken,
}

impl Order {
    /// Creates the VM from the image's template.
    pub(super) async fn create(self, wishes: Wishes) -> Result<(), Fault> {
        let stage = self.audience.stage("disk");
        let settings = wished(self.world.default_settings(), wishes)?;
        let size = wishes.disk.unwrap_or_else(|| self.world.default_disk());
        self.make(settings, size)
            .await
            .map_err(|fault| self.attempted("create", fault))?;
        stage.done();
        Ok(())
    }

    /// Creates the disk and its folder.
    pub(super) async fn make(&self, settings: Settings, size: Bytes) -> Result<(), Fault> {
        let folder = self.world.folder(&self.name);
        let image = self.world.image()?;
        blocking(move || {
            let template = image.template()?;
            let taken = template.metadata().map_or(0, |found| found.blocks() * 512);
            folder.check_space(Bytes(taken))?;
            folder.create(&template, size, &settings)
        })
        .await
    }

    /// Grows the disk, and the file system in it when the VM runs; otherwise the next start does that.
    pub(super) async fn resize(
        self,
        size: Bytes,
        agent: Option<Agent>,
        disk: Option<DataDisk>,
    ) -> Result<(), Fault> {
        let stage = self.audience.stage("disk");
        let folder = self.world.folder(&self.name);
        blocking(move || folder.grow(size))
            .await
            .map_err(|fault| self.attempted("resize", fault))?;
        stage.done();
        let (Some(agent), Some(disk)) = (agent, disk) else {
            self.audience
                .note("the file system grows at the next start");
            return Ok(());
        };
        let stage = self.audience.stage("file system");
        let grown = grow_running(&agent, &disk, size).await;
        grown.map_err(|fault| self.attempted("resize", fault))?;
        stage.done();
        Ok(())
    }

    /// Writes the VM into `bytes` until the client goes away.
    pub(super) async fn export(self, bytes: mpsc::Sender<Vec<u8>>) -> Result<(), Fault> {
        let folder = self.world.folder(&self.name);
        // A VM can be exported when its image is gone.
        let build = self
            .world
            .image()
            .map_or(String::new(), |image| image.build().to_owned());
        let name = self.name.clone();
        let sink = io::BufWriter::with_capacity(
            CHUNK,
            Chunks {
                bytes,
                cancel: self.cancel.clone(),
            },
        );
        let outcome = blocking(move || {
            let _lock = folder.lock();
            let (disk, settings) = (folder.disk()?, folder.settings()?);
            export::write(&disk, name, settings, build, sink).map_err(|error| {
                Fault::new(Kind::Internal, "E-EXPORT", "cannot write the export").because(&error)
            })
        });
        outcome
            .await
            .map_err(|fault| self.attempted("export", fault))
    }

    /// Builds the VM from `bytes`; a client that goes away leaves nothing behind.
    pub(super) async fn import(self, bytes: mpsc::Receiver<Vec<u8>>) -> Result<(), Fault> {
        let stage = self.audience.stage("disk");
        let folder = self.world.folder(&self.name);
        let audience = self.audience.clone();
        let source = Arriving {
            bytes,
            chunk: Vec::new(),
            read: 0,
            cancel: self.cancel.clone(),
        };
        blocking(move || {
            import::read(&folder, source, |done, total| {
                audience.fraction(done, total);
            })
            .map_err(|error| error.fault(&folder))
        })
        .await?;
        stage.done();
        Ok(())
    }

    /// Removes the VM with its disk and logs.
    pub(super) async fn destroy(self) -> Result<(), Fault> {
        let folder = self.world.folder(&self.name);
        let logs = self.world.places.vm_logs(&self.name);
        blocking(move || {
            folder.destroy()?;
            // The disk is what mattered; a log that stays is overwritten by the next VM of that name.
            let _kept = std::fs::remove_dir_all(logs);
            Ok(())
        })
        .await
    }

    /// Changes what the next start uses, and the rules of `windows` at once.
    pub(super) async fn set(self, wishes: Wishes, windows: Option<Windows>) -> Result<(), Fault> {
        let folder = self.world.folder(&self.name);
        let name = self.name.clone();
        blocking(move || {
            let settings = wished(folder.settings()?, wishes)
                .map_err(|fault| fault.while_doing(format!("cannot change {name}")))?;
            folder.save(&settings)
        })
        .await?;
        if let (Some(windows), Some(modes)) = (windows, wishes.clipboard) {
            windows.set_modes(modes);
        }
        Ok(())
    }

    fn attempted(&self, act: &str, fault: Fault) -> Fault {
        fault.while_doing(format!("cannot {act} {}", self.name))
    }
}

/// Lets a running guest use the disk's new `size`.
async fn grow_running(agent: &Agent, disk: &DataDisk, size: Bytes) -> Result<(), Fault> {
    /// The guest's kernel notices the new size on its own time.
    const TRIES: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(100);
    let failed = |cause: &io::Error| {
        Fault::new(
            Kind::Unreachable,
            "E-DISK",
            "the engine cannot tell the guest of the new size",
        )
        .because(cause)
    };
    disk.grew(size).await.map_err(|error| failed(&error))?;
    for _ in 0..TRIES {
        let figures = agent.grow_disk().await?;
        if !super::start::is_smaller(figures.total_bytes, size) {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Fault::new(
        Kind::Unreachable,
        "E-DISK",
        "the guest does not notice the new size",
    )
    .hint("the file system grows at the next start"))
}

/// Returns `settings` with what was wished for.
fn wished(mut settings: Settings, wishes: Wishes) -> Result<Settings, Fault> {
    let refuse = |message: String| Err(Fault::new(Kind::Invalid, "E-VM-SIZE", message));
    if let Some(cpus) = wishes.cpus {
        match u16::try_from(cpus) {
            Ok(cpus @ 1..=MAX_VCPUS) => settings.cpus = cpus,
            _ => {
                return refuse(format!(
                    "a VM cannot have {cpus} processors: 1 to {MAX_VCPUS}"
                ));
            }
        }
    }
    if let Some(memory) = wishes.memory {
        if !(MIN_MEMORY.0..=MAX_MEMORY.0).contains(&memory.0) {
            return refuse(format!(
                "a VM cannot have {memory} of memory: {MIN_MEMORY} to {MAX_MEMORY}"
            ));
        }
        settings.memory = memory;
    }
    settings.clipboard = wishes.clipboard.unwrap_or(settings.clipboard);
    Ok(settings)
}

/// Runs file work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Fault::internal(&error)),
    }
}

/// The client's end of an export, for a thread that writes.
struct Chunks {
    bytes: mpsc::Sender<Vec<u8>>,
    cancel: CancellationToken,
}

impl Write for Chunks {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("another request ended it"));
        }
        let chunk = &buffer[..buffer.len().min(CHUNK)];
        let sent = self.bytes.blocking_send(chunk.to_vec());
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client went away"))?;
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The client's end of an import, for a thread that reads.
struct Arriving {
    bytes: mpsc::Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    read: usize,
    cancel: CancellationToken,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len() {
            if self.cancel.is_cancelled() {
                return Err(io::Error::other("another request ended it"));
            }
            match self.bytes.blocking_recv() {
                Some(chunk) => (self.chunk, self.read) = (chunk, 0),
                None => return Ok(0),
            }
        }
        let rest = &self.chunk[self.read..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }
}
