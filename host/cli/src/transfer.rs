//! Files on their way to and from the daemon: in chunks, and under a temporary name until they are whole.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use wire::proto::Chunk;
use wire::{Fault, Kind};

use crate::end::PIPE_CODE;

/// Most bytes in one chunk (proto/progress.proto).
pub(crate) const CHUNK: usize = 1 << 20;

/// Chunks that may wait for the daemon: enough to keep it busy, little enough to stay in memory.
const QUEUE: usize = 4;

/// Reads `file` to its end in chunks of [`CHUNK`] and gives each to `send`, until that returns false.
pub(crate) fn chunks(mut file: impl Read, mut send: impl FnMut(Vec<u8>) -> bool) -> io::Result<()> {
    loop {
        let mut data = Vec::with_capacity(CHUNK);
        file.by_ref().take(CHUNK as u64).read_to_end(&mut data)?;
        if data.is_empty() || !send(data) {
            return Ok(());
        }
    }
}

/// Something of the user's that is read to its end.
pub(crate) type Reader = Box<dyn Read + Send>;

/// Sends `first` and then every chunk of the files as `part` makes it of the file's position and the data. Returns
/// the stream for the daemon, and a future that ends only if a file could not be read; the stream stays open
/// then, since its end would mean that the file was whole.
pub(crate) fn carry<T: Send + 'static>(
    first: T,
    files: Vec<Reader>,
    part: impl Fn(u32, Vec<u8>) -> T + Send + 'static,
) -> (ReceiverStream<T>, impl Future<Output = io::Error>) {
    let (parts, stream) = mpsc::channel(QUEUE);
    let read = tokio::task::spawn_blocking(move || {
        // A daemon that takes no more says why in its answer to the call.
        let mut open = parts.blocking_send(first).is_ok();
        for (index, file) in (0..).zip(files) {
            let sent = chunks(file, |data| {
                open = open && parts.blocking_send(part(index, data)).is_ok();
                open
            });
            if let Err(error) = sent {
                return Err((error, parts));
            }
        }
        Ok(())
    });
    let failure = async {
        match read.await {
            Ok(Err((error, _open))) => error,
            _ => std::future::pending().await,
        }
    };
    (ReceiverStream::new(stream), failure)
}

/// Where something is exported to.
#[derive(Debug)]
pub(crate) enum Target {
    /// A file that gets its name when it is whole.
    File {
        /// What is written.
        part: NamedTempFile,
        /// The name it gets.
        path: PathBuf,
        /// Whether a file of that name is replaced.
        replace: bool,
    },
    /// Stdout.
    Stdout,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// How much.
    pub(crate) bytes: u64,
    /// Its sha256 in hexadecimal.
    pub(crate) sha256: String,
}

impl Target {
    /// Opens the target at `path`, `-` for stdout.
    pub(crate) fn open(path: &Path, replace: bool) -> Result<Self, Fault> {
        if path == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(
                    Fault::new(Kind::Invalid, "E-OUTPUT", "stdout is a terminal").hint(
                        "name a file, or send it on: … - | ssh backup 'cat > penguin.tar.zst'",
                    ),
                );
            }
            return Ok(Self::Stdout);
        }
        if !replace && path.symlink_metadata().is_ok() {
            return Err(Fault::new(
                Kind::Exists,
                "E-FILE-EXISTS",
                format!("{} exists", path.display()),
            )
            .hint("replace it with --force"));
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let part = tempfile::Builder::new()
            .prefix(".testudo-export-")
            .tempfile_in(folder)
            .map_err(|error| unwritable(path, &error))?;
        Ok(Self::File {
            part,
            path: path.to_owned(),
            replace,
        })
    }

    /// Writes the stream to its end and gives the file its name.
    pub(crate) async fn write(
        mut self,
        mut stream: Streaming<Chunk>,
        mut written: impl FnMut(u64),
    ) -> Result<Written, Fault> {
        let mut hash = Sha256::new();
        let mut bytes = 0;
        while let Some(chunk) = stream.message().await? {
            hash.update(&chunk.data);
            self.push(&chunk.data)?;
            bytes += chunk.data.len() as u64;
            written(bytes);
        }
        self.name()?;
        let sha256 = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Written { bytes, sha256 })
    }

    fn push(&mut self, data: &[u8]) -> Result<(), Fault> {
        match self {
            Self::File { part, path, .. } => part
                .write_all(data)
                .map_err(|error| unwritable(path, &error)),
            Self::Stdout => {
                io::stdout()
                    .lock()
                    .write_all(data)
                    .map_err(|error| match error.kind() {
                        io::ErrorKind::BrokenPipe => {
                            Fault::new(Kind::Internal, PIPE_CODE, "stdout is closed")
                        }
                        _ => unwritable(Path::new("stdout"), &error),
                    })
            }
        }
    }

    fn name(self) -> Result<(), Fault> {
        let Self::File {
            part,
            path,
            replace,
        } = self
        else {
            return io::stdout()
                .flush()
                .map_err(|error| unwritable(Path::new("stdout"), &error));
        };
        part.as_file()
            .sync_all()
            .map_err(|error| unwritable(&path, &error))?;
        let named = if replace {
            part.persist(&path)
        } else {
            part.persist_noclobber(&path)
        };
        named
            .map(drop)
            .map_err(|error| unwritable(&path, &error.error))
    }
}

/// Opens a file of the user's for reading, `-` for stdin.
pub(crate) fn open(path: &Path) -> Result<Reader, Fault> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    if file.metadata().is_ok_and(|found| found.is_dir()) {
        return Err(unreadable(path, &io::ErrorKind::IsADirectory.into()));
    }
    Ok(Box::new(file))
}

/// Returns the fault for a file that cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Fault {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::PermissionDenied => Kind::Denied,
        _ => Kind::Invalid,
    };
    Fault::new(kind, "E-FILE", format!("cannot read {}", shown(path))).because(error)
}

/// Returns the path as the user knows it.
pub(crate) fn shown(path: &Path) -> String {
    if path == Path::new("-") {
        "stdin".to_owned()
    } else {
        path.display().to_string()
    }
}

/// Returns the fault for a file that cannot be written.
pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Fault {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Exhausted,
        io::ErrorKind::PermissionDenied => Kind::Denied,
        io::ErrorKind::AlreadyExists => Kind::Exists,
        _ => Kind::Internal,
    };
    Fault::new(kind, "E-FILE", format!("cannot write {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_into_chunks() {
        let mut sizes = Vec::new();
        let file = io::repeat(7).take(2 * CHUNK as u64 + 5);
        chunks(file, |data| {
            sizes.push(data.len());
            true
        })
        .unwrap();
        assert_eq!(sizes, [CHUNK, CHUNK, 5]);
    }

    #[test]
    fn what_was_not_finished_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut target = Target::open(&folder.path().join("x"), false).unwrap();
        target.push(b"half").unwrap();
        drop(target);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_existing_file_is_only_replaced_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "old").unwrap();
        let fault = Target::open(&path, false).unwrap_err();
        assert_eq!(fault.parts().code, "E-FILE-EXISTS");
        let mut target = Target::open(&path, true).unwrap();
        target.push(b"new").unwrap();
        target.name().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }
}
