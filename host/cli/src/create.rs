//! Making a container: from the base, or from files of the user, which are only carried. No byte of them is
//! interpreted on the host.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use wire::proto::create_container::Part;
use wire::proto::{ContainerSource, CreateContainer, CreateContainerHeader, FileChunk};
use wire::{ContainerName, Fault, Kind, VmName};

use crate::client::Client;
use crate::person;
use crate::transfer::{self, CHUNK, Reader};
use crate::ui::Stages;

/// What a container is made from.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Source (default: the base image)")]
pub(crate) struct SourceOptions {
    /// A tarball of a root file system, `-` for stdin
    #[arg(long, value_name = "FILE", group = "from")]
    from_rootfs: Option<PathBuf>,
    /// An image of two tarballs: its metadata and its root file system
    #[arg(long, value_names = ["META", "ROOTFS"], num_args = 2, group = "from")]
    from_image: Option<Vec<PathBuf>>,
    /// An OCI image: a layout folder, a tar of one, or what `docker save` and `podman save` write
    #[arg(long, value_name = "PATH", group = "from")]
    from_oci: Option<PathBuf>,
}

/// What a container is made from, in the daemon's terms.
#[derive(Debug)]
pub(crate) struct Source {
    kind: ContainerSource,
    files: Vec<PathBuf>,
}

impl Source {
    /// Returns a source of `kind` with its files in order; `-` is stdin.
    pub(crate) fn new(kind: ContainerSource, files: Vec<PathBuf>) -> Self {
        Self { kind, files }
    }

    /// Returns what kind it is.
    pub(crate) fn kind(&self) -> ContainerSource {
        self.kind
    }
}

impl SourceOptions {
    /// Returns the source that was chosen.
    pub(crate) fn source(self) -> Source {
        match (self.from_rootfs, self.from_image, self.from_oci) {
            (Some(file), _, _) => Source::new(ContainerSource::Rootfs, vec![file]),
            (_, Some(files), _) => Source::new(ContainerSource::Image, files),
            (_, _, Some(path)) => Source::new(ContainerSource::Oci, vec![path]),
            (None, None, None) => Source::new(ContainerSource::Base, Vec::new()),
        }
    }
}

/// Returns the header for a container of this user.
pub(crate) fn header(container: &ContainerName, source: &Source) -> CreateContainerHeader {
    CreateContainerHeader {
        container: container.to_string(),
        source: source.kind.into(),
        user: Some(person::of_this_process()),
        start_on_boot: false,
    }
}

/// Makes the container that `header` names in the running VM.
pub(crate) async fn container(
    client: &Client,
    vm: &VmName,
    header: CreateContainerHeader,
    source: Source,
    stages: &mut Stages<'_>,
) -> Result<(), Fault> {
    let first = CreateContainer {
        part: Some(Part::Header(header)),
    };
    let (parts, unreadable_file) = transfer::carry(first, open(&source)?, |index, data| {
        let part = Part::File(FileChunk { index, data });
        CreateContainer { part: Some(part) }
    });
    let mut containers = client.containers(vm);
    let create = async {
        let report = containers.create(parts).await?.into_inner();
        stages.follow(report).await
    };
    // Leaving the call is what tells the daemon that the files did not come to their end.
    tokio::select! {
        created = create => created,
        error = unreadable_file => Err(unreadable(&source).because(&error)),
    }
}

fn open(source: &Source) -> Result<Vec<Reader>, Fault> {
    let files = source.files.iter().map(|path| {
        let file: Reader = if path == Path::new("-") {
            Box::new(io::stdin())
        } else if source.kind == ContainerSource::Oci && path.is_dir() {
            layout(path)?
        } else {
            let file = File::open(path).map_err(|error| transfer::unreadable(path, &error))?;
            if file.metadata().is_ok_and(|found| found.is_dir()) {
                return Err(transfer::unreadable(
                    path,
                    &io::ErrorKind::IsADirectory.into(),
                ));
            }
            Box::new(file)
        };
        Ok(file)
    });
    files.collect()
}

/// Returns a tar of the OCI layout folder at `path`, made as it is read.
fn layout(path: &Path) -> Result<Reader, Fault> {
    if !path.join("oci-layout").is_file() {
        return Err(Fault::new(
            Kind::Invalid,
            "E-SOURCE",
            format!("{} is no OCI image", path.display()),
        )
        .cause("the folder holds no file named oci-layout (OCI image layout specification)"));
    }
    let (reader, writer) = io::pipe().map_err(|error| Fault::internal(&error))?;
    let folder = path.to_owned();
    let make = std::thread::spawn(move || {
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(CHUNK, writer));
        tar.follow_symlinks(false);
        tar.append_dir_all(".", folder)?;
        io::Write::flush(&mut tar.into_inner()?)
    });
    Ok(Box::new(Made {
        reader,
        make: Some(make),
    }))
}

/// A tar that a thread makes while it is read; the thread's failure is the reader's.
struct Made {
    reader: io::PipeReader,
    make: Option<std::thread::JoinHandle<io::Result<()>>>,
}

impl Read for Made {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        if length == 0
            && !buffer.is_empty()
            && let Some(make) = self.make.take()
        {
            make.join()
                .map_err(|_| io::Error::other("archiving failed"))??;
        }
        Ok(length)
    }
}

fn unreadable(source: &Source) -> Fault {
    let files: Vec<_> = source
        .files
        .iter()
        .map(|path| transfer::shown(path))
        .collect();
    let message = format!("cannot read {}", files.join(" or "));
    Fault::new(Kind::Invalid, "E-FILE", message)
}
