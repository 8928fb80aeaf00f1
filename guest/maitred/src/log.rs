//! The agent's log: two files in memory that replace each other, so that the last lines survive the agent and
//! every process of ours writes to the same place.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use wire::Fault;

use crate::fault::OrFault;

/// The agent's log on the tmpfs.
pub(crate) const AGENT: &str = "/run/testudo/agent.log";

/// A file that has grown to this many bytes becomes the old one: some thousand lines, for little memory.
const SIZE_MAX: u64 = 256 << 10;

/// How often a followed log is looked at; nobody looks when nobody follows.
const FOLLOW_PERIOD: Duration = Duration::from_millis(200);

/// Most bytes read from a log at once.
const CHUNK: usize = 64 << 10;

/// Sends every line of this process to the agent's log; `filter` is the command line's.
pub(crate) fn start(filter: Option<&str>) {
    // A bare level means ours; libraries have much to say that tells nothing here.
    let level = filter.unwrap_or("info");
    let filter = format!("warn,{}={level}", env!("CARGO_CRATE_NAME"));
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Ring)
        .finish();
    // A second subscriber in one process could only come from our own mistake, and costs no more than lines.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

#[derive(Clone, Copy, Debug)]
struct Ring;

impl<'a> MakeWriter<'a> for Ring {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for Ring {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        append(Path::new(AGENT), line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adds `line` to the log at `path`, putting a full file aside first.
fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    if file.metadata()?.len() >= SIZE_MAX {
        std::fs::rename(path, older(path))?;
        file = OpenOptions::new().append(true).create(true).open(path)?;
    }
    file.write_all(line)
}

/// Where a full log goes; LXC names it the same way.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Sends the log at `path`, oldest line first; goes on with what is added when `follow` is set, until nobody
/// listens any more. A log that does not exist yet is empty.
pub(crate) async fn send(
    path: PathBuf,
    follow: bool,
    out: mpsc::Sender<Vec<u8>>,
) -> Result<(), Fault> {
    let unreadable = || format!("cannot read the log {}", path.display());
    let mut reader = Reader::default();
    if let Ok(mut old) = File::open(older(&path)) {
        reader
            .drain(&mut old, &out)
            .await
            .or_fault("E-LOG", unreadable)?;
    }
    loop {
        reader
            .follow(&path, &out)
            .await
            .or_fault("E-LOG", unreadable)?;
        if !follow || out.is_closed() {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_PERIOD).await;
    }
}

/// A file being followed, and which one it was.
#[derive(Default)]
struct Reader {
    current: Option<(File, u64)>,
}

impl Reader {
    /// Sends what has been added to `path` since the last time, across a change of files.
    async fn follow(&mut self, path: &Path, out: &mpsc::Sender<Vec<u8>>) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let there = std::fs::metadata(path).ok().map(|m| (m.ino(), m.len()));
        if let Some((mut file, inode)) = self.current.take() {
            self.drain(&mut file, out).await?;
            let read = file.stream_position()?;
            // LXC empties its logs in place.
            if there.is_some_and(|(same, length)| same == inode && length >= read) {
                self.current = Some((file, inode));
                return Ok(());
            }
        }
        if let Some((inode, _)) = there {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(0))?;
            self.drain(&mut file, out).await?;
            self.current = Some((file, inode));
        }
        Ok(())
    }

    async fn drain(&self, file: &mut File, out: &mpsc::Sender<Vec<u8>>) -> io::Result<()> {
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = file.read(&mut chunk)?;
            chunk.truncate(read);
            if chunk.is_empty() || out.send(chunk).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Returns the last `lines` lines of the file at `path`, for a fault that they belong to.
pub(crate) fn tail(path: &Path, lines: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let length = file.metadata().map_or(0, |m| m.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(CHUNK as u64)));
        let _ = file.take(CHUNK as u64).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    all[all.len().saturating_sub(lines)..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn collect(path: &Path) -> String {
        let (out, mut lines) = mpsc::channel(64);
        send(path.to_owned(), false, out).await.unwrap();
        let mut all = Vec::new();
        while let Some(chunk) = lines.recv().await {
            all.extend(chunk);
        }
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn the_log_keeps_its_last_lines_within_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let line = "x".repeat(1023) + "\n";
        for _ in 0..(2 * SIZE_MAX / 1024 + 2) {
            append(&path, line.as_bytes()).unwrap();
        }
        append(&path, b"the end\n").unwrap();
        let all = collect(&path).await;
        assert!(all.ends_with("the end\n"));
        assert!(all.len() as u64 > SIZE_MAX && all.len() as u64 <= 2 * SIZE_MAX + 2048);
        assert_eq!(tail(&path, 1), ["the end"]);
    }

    #[tokio::test]
    async fn following_goes_on_in_the_next_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, b"one\n").unwrap();
        let (out, mut lines) = mpsc::channel(8);
        let follower = tokio::spawn(send(path.clone(), true, out));
        assert_eq!(lines.recv().await.unwrap(), b"one\n");
        append(&path, b"two\n").unwrap();
        std::fs::rename(&path, older(&path)).unwrap();
        append(&path, b"three\n").unwrap();
        assert_eq!(lines.recv().await.unwrap(), b"two\n");
        assert_eq!(lines.recv().await.unwrap(), b"three\n");
        drop(lines);
        follower.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_is_empty() {
        assert_eq!(collect(Path::new("/nonexistent/log")).await, "");
    }
}
