//! Making a container: from the base, or from files of the user, which are only carried. No byte of them is
//! interpreted on the host.

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
pub(crate) struct Source {
    kind: ContainerSource,
    paths: Vec<PathBuf>,
    files: Vec<Reader>,
}

impl Source {
    /// Returns the base, which needs no files.
    pub(crate) fn base() -> Self {
        Self {
            kind: ContainerSource::Base,
            paths: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Opens a source of `kind` with its files in order; `-` is stdin. To be done before anything is started for it.
    pub(crate) fn open(kind: ContainerSource, paths: Vec<PathBuf>) -> Result<Self, Fault> {
        let files = paths.iter().map(|path| open(kind, path));
        Ok(Self {
            kind,
            files: files.collect::<Result<_, _>>()?,
            paths,
        })
    }
}

impl SourceOptions {
    /// Returns whether there is one of the user's own.
    pub(crate) fn is_given(&self) -> bool {
        self.from_rootfs.is_some() || self.from_image.is_some() || self.from_oci.is_some()
    }

    /// Opens the source that was chosen.
    pub(crate) fn open(self) -> Result<Source, Fault> {
        match (self.from_rootfs, self.from_image, self.from_oci) {
            (Some(file), _, _) => Source::open(ContainerSource::Rootfs, vec![file]),
            (_, Some(files), _) => Source::open(ContainerSource::Image, files),
            (_, _, Some(path)) => Source::open(ContainerSource::Oci, vec![path]),
            (None, None, None) => Ok(Source::base()),
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
    let name = header.container.clone();
    let first = CreateContainer {
        part: Some(Part::Header(header)),
    };
    let Source { kind, paths, files } = source;
    let (parts, unreadable_file) = transfer::carry(first, files, |index, data| {
        let part = Part::File(FileChunk { index, data });
        CreateContainer { part: Some(part) }
    });
    // Files that are cut off are given up; the base is there already.
    stages.under_way(match kind {
        ContainerSource::Base => format!("container {name} is still being made"),
        _ => String::new(),
    });
    let mut containers = client.containers(vm);
    let create = stages.follow(containers.create(parts));
    // Leaving the call is what tells the daemon that the files did not come to their end.
    tokio::select! {
        created = create => created,
        error = unreadable_file => Err(unreadable(&paths).because(&error)),
    }
}

fn open(kind: ContainerSource, path: &Path) -> Result<Reader, Fault> {
    if kind == ContainerSource::Oci && path.is_dir() {
        layout(path)
    } else {
        transfer::open(path)
    }
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

fn unreadable(paths: &[PathBuf]) -> Fault {
    let files: Vec<_> = paths.iter().map(|path| transfer::shown(path)).collect();
    let message = format!("cannot read {}", files.join(" or "));
    Fault::new(Kind::Invalid, "E-FILE", message)
}
