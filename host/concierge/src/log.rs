//! A VM's log files on the host: capped, rotated once, with the last lines at hand and a way to follow.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// A file that grows beyond this is renamed to `.1` and begun anew, so a VM's log takes at most twice as much.
const FILE_MAX: u64 = 2 << 20;

/// Lines kept in memory for error reports.
const TAIL_LINES: usize = 15;

/// Longest line kept in memory; the rest of a longer one is cut off in the file too.
const LINE_MAX: usize = 1024;

/// Most bytes accepted in a burst, and what is added each second afterwards: a guest that prints in a loop
/// fills neither the disk nor a core.
const BURST_BYTES: f64 = 512.0 * 1024.0;
const BYTES_PER_SECOND: f64 = 64.0 * 1024.0;

/// One log, shared by those who write it and those who read it.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    path: Arc<PathBuf>,
    inner: Arc<Mutex<Inner>>,
    written: Arc<watch::Sender<()>>,
}

#[derive(Debug)]
struct Inner {
    file: Option<File>,
    length: u64,
    generation: u64,
    partial: Vec<u8>,
    tail: VecDeque<String>,
    allowance: f64,
    refilled: Instant,
    dropped: u64,
}

/// Where a follower is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Position {
    generation: u64,
    offset: u64,
}

impl Log {
    /// Opens the log at `path` for appending, making its folder; a log that cannot be opened keeps only its last
    /// lines in memory, since a VM must not fail for want of a log.
    pub(crate) fn open(path: PathBuf) -> Self {
        let file = create(&path)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "cannot open log"))
            .ok();
        let length = file
            .as_ref()
            .and_then(|file| file.metadata().ok())
            .map_or(0, |found| found.len());
        Self {
            path: Arc::new(path),
            inner: Arc::new(Mutex::new(Inner {
                file,
                length,
                generation: 0,
                partial: Vec::new(),
                tail: VecDeque::new(),
                allowance: BURST_BYTES,
                refilled: Instant::now(),
                dropped: 0,
            })),
            written: Arc::new(watch::Sender::new(())),
        }
    }

    /// Returns where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends bytes from a console or a child, as far as the rate allows.
    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut inner = self.lock();
        if inner.allow(bytes.len()) {
            inner.append(&self.path, bytes);
            inner.remember(bytes);
        }
        drop(inner);
        self.written.send_replace(());
    }

    /// Appends one line of our own.
    pub(crate) fn line(&self, line: &str) {
        let mut text = String::with_capacity(line.len() + 1);
        text.push_str(line);
        text.push('\n');
        self.write(text.as_bytes());
    }

    /// Forgets the last lines: what is reported from now on belongs to a new start.
    pub(crate) fn begin(&self) {
        let mut inner = self.lock();
        inner.tail.clear();
        inner.partial.clear();
    }

    /// Returns the last lines since [`Log::begin`], cleaned of control characters.
    pub(crate) fn tail(&self) -> Vec<String> {
        let inner = self.lock();
        let unfinished = (!inner.partial.is_empty()).then(|| clean(&inner.partial));
        let lines = inner.tail.iter().cloned().chain(unfinished);
        let skip =
            (inner.tail.len() + usize::from(!inner.partial.is_empty())).saturating_sub(TAIL_LINES);
        lines.skip(skip).collect()
    }

    /// Reads what was written after `position` into `chunk`, at most its length, and moves the position on.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read_after(
        &self,
        position: &mut Position,
        chunk: &mut [u8],
    ) -> io::Result<usize> {
        let generation = self.lock().generation;
        if position.generation != generation {
            *position = Position {
                generation,
                offset: 0,
            };
        }
        let mut file = match File::open(&*self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            opened => opened?,
        };
        file.seek(SeekFrom::Start(position.offset))?;
        let count = file.read(chunk)?;
        position.offset += count as u64;
        Ok(count)
    }

    /// Returns a receiver that changes with each write.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.written.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A token bucket over bytes; what exceeds it is counted and reported once it flows again.
    fn allow(&mut self, bytes: usize) -> bool {
        let now = Instant::now();
        let since = now
            .duration_since(self.refilled)
            .min(Duration::from_secs(60));
        self.allowance = (self.allowance + since.as_secs_f64() * BYTES_PER_SECOND).min(BURST_BYTES);
        self.refilled = now;
        let cost = bytes as f64;
        if cost > self.allowance {
            self.dropped += bytes as u64;
            return false;
        }
        self.allowance -= cost;
        true
    }

    fn append(&mut self, path: &Path, bytes: &[u8]) {
        if self.length + bytes.len() as u64 > FILE_MAX {
            self.rotate(path);
        }
        let dropped = std::mem::take(&mut self.dropped);
        let Some(file) = &mut self.file else { return };
        let mut write = || {
            if dropped > 0 {
                writeln!(file, "[{dropped} bytes were dropped: too many at once]")?;
            }
            file.write_all(bytes)
        };
        match write() {
            Ok(()) => self.length += bytes.len() as u64,
            // A full disk must not end the VM; the last lines stay in memory.
            Err(error) => tracing::debug!(path = %path.display(), %error, "cannot write log"),
        }
    }

    fn rotate(&mut self, path: &Path) {
        let mut old = path.as_os_str().to_owned();
        old.push(".1");
        let renamed = std::fs::rename(path, old);
        self.file = renamed.and_then(|()| create(path)).ok();
        self.length = 0;
        self.generation += 1;
    }

    fn remember(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = clean(&std::mem::take(&mut self.partial));
                if self.tail.len() == TAIL_LINES {
                    self.tail.pop_front();
                }
                self.tail.push_back(line);
            } else if self.partial.len() < LINE_MAX {
                self.partial.push(byte);
            }
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// Returns text that a terminal shows as it stands: what a guest prints must not move the cursor.
pub(crate) fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|character| !character.is_control() || *character == '\t')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> (tempfile::TempDir, Log) {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path().join("deep/console.log"));
        (folder, log)
    }

    #[test]
    fn the_last_lines_are_kept_clean() {
        let (_folder, log) = log();
        for number in 0..40 {
            log.write(format!("line {number}\x1b[2J\r\n").as_bytes());
        }
        log.write(b"unfinished");
        let tail = log.tail();
        assert_eq!(tail.len(), TAIL_LINES);
        assert_eq!(tail[TAIL_LINES - 2], "line 39[2J");
        assert_eq!(tail[TAIL_LINES - 1], "unfinished");
    }

    #[test]
    fn a_flood_is_cut_off_and_said_so() {
        let (_folder, log) = log();
        let kilobyte = [b'x'; 1024];
        for _ in 0..4096 {
            log.write(&kilobyte);
        }
        let length = std::fs::metadata(log.path()).unwrap().len();
        assert!(length < 1 << 20, "{length} bytes went through");
        log.lock().allowance = BURST_BYTES;
        log.line("quiet again");
        let text = std::fs::read_to_string(log.path()).unwrap();
        assert!(text.contains("bytes were dropped"), "the gap is not marked");
    }

    #[test]
    fn a_follower_sees_what_comes_after_a_rotation() {
        let (_folder, log) = log();
        let mut position = Position::default();
        let mut chunk = [0; 64];
        log.line("before");
        assert_eq!(log.read_after(&mut position, &mut chunk).unwrap(), 7);
        log.lock().length = FILE_MAX;
        log.line("after");
        let count = log.read_after(&mut position, &mut chunk).unwrap();
        assert_eq!(&chunk[..count], b"after\n");
    }
}
