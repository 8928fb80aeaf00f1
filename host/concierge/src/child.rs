//! Starts the engine and the daemons of a VM on the host and collects what they say.
//!
//! Each child has an empty standard input, its standard error in the VM's log, exactly the descriptors it is
//! given, and dies with concierge (`sys::spawn`). All children are started on the main thread, which runs
//! concierge's one runtime and therefore lives as long as concierge does.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use spec::fd::InheritedFd;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::log::Log;

/// A running child; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: tokio::process::Child,
}

/// Starts `program` under the short `name` that its log lines carry.
///
/// # Errors
/// When the program cannot be executed.
pub(crate) fn start<A: AsRef<OsStr>>(
    name: &str,
    program: &Path,
    arguments: &[A],
    descriptors: Vec<OwnedFd>,
    log: &Log,
) -> io::Result<Child> {
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .envs(std::env::vars_os().filter(|(key, _)| key == "TESTUDO_LOG"))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    sys::spawn::tie(&mut command, descriptors);
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let mut process = command.spawn()?;
    let said = process.stderr.take().expect("standard error is piped");
    tokio::spawn(collect(name.to_owned(), said, log.clone()));
    Ok(Child {
        name: name.to_owned(),
        process,
    })
}

impl Child {
    /// Returns the name in its log lines.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process id; `None` once it has been reaped.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits for its end. May be cancelled and called again.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Kills it without waiting.
    pub(crate) fn end(&mut self) {
        // An error means that it is gone already.
        let _gone = self.process.start_kill();
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.end();
        let _reaped = self.process.wait().await;
    }
}

/// Returns the number by which a child that is given `descriptor` finds it.
pub(crate) fn name_of(descriptor: &impl AsRawFd) -> InheritedFd {
    InheritedFd(descriptor.as_raw_fd())
}

/// Returns a memory file that holds `text` and is read from its start: what a child is told.
///
/// # Errors
/// When there is no memory.
pub(crate) fn message_file(text: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("spec", MemfdFlags::CLOEXEC)?);
    file.write_all(text)?;
    file.rewind()?;
    Ok(file.into())
}

/// Says how a child ended.
pub(crate) fn describe(name: &str, status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("{name} ended with exit code {code}"),
        (None, Some(signal)) => format!("{name} was killed by signal {signal}"),
        (None, None) => format!("{name} ended"),
    }
}

/// Puts each line that a child says into the log, under its name.
async fn collect(name: String, mut said: impl AsyncRead + Unpin, log: Log) {
    /// Longer lines are split.
    const LINE_MAX: usize = 4096;
    let mut buffer = Vec::with_capacity(LINE_MAX);
    loop {
        match said.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            log.line(&format!("{name}: {}", crate::log::clean(&line)));
        }
        if buffer.len() >= LINE_MAX {
            log.line(&format!("{name}: {}", crate::log::clean(&buffer)));
            buffer.clear();
        }
    }
    if !buffer.is_empty() {
        log.line(&format!("{name}: {}", crate::log::clean(&buffer)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_child_says_is_in_the_log_before_its_name_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path().join("vm.log"));
        let mut changes = log.changes();
        let arguments = ["-c", "echo one >&2; printf two >&2; exit 3"];
        let mut child = start("sh", Path::new("/bin/sh"), &arguments, Vec::new(), &log).unwrap();
        let status = child.ended().await.unwrap();
        assert_eq!(describe("sh", status), "sh ended with exit code 3");
        while log.tail().len() < 2 {
            changes.changed().await.unwrap();
        }
        assert_eq!(log.tail(), ["sh: one", "sh: two"]);
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path().join("vm.log"));
        let missing = Path::new("/nonexistent/program");
        let error = start::<&str>("x", missing, &[], Vec::new(), &log).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
