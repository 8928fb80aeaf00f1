//! Runs other programs for a chore: their output goes to a log file, its newest line to the step's
//! spinner, and its last lines into the error when they fail.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::progress::Step;

/// Lines of a failed program's output that its error repeats; the log has them all.
const LAST_LINES: usize = 15;

/// Runs `command` to its end with stdin closed, both outputs in `log`.
///
/// # Errors
/// When it cannot start or does not exit with 0; the error carries its last lines.
pub(crate) fn run(command: &mut Command, log: &Path, step: &Step) -> Result<()> {
    let name = name_of(command);
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot open log {}", log.display()))?;
    writeln!(file, "+ {command:?}").context("cannot write the log")?;
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let second = writer.try_clone().context("cannot copy a pipe's end")?;
    let spawned = command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(second)
        .spawn();
    // The command keeps the pipe's ends until they are replaced; the reader needs them closed.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawned.with_context(|| format!("cannot start {name}"))?;
    let mut last = VecDeque::with_capacity(LAST_LINES);
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line.context("cannot read output")?).into_owned();
        writeln!(file, "{line}").context("cannot write the log")?;
        step.detail(&line);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {name}"))?;
    if !status.success() {
        let last: Vec<_> = last.into();
        bail!(
            "{name} failed ({status}); log {}; last lines:\n{}",
            log.display(),
            last.join("\n")
        );
    }
    Ok(())
}

/// Returns what `command` prints on stdout.
///
/// # Errors
/// When it cannot start or does not exit with 0; the error carries its stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = name_of(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}): {}", output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed other than UTF-8"))
}

fn name_of(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_failed_command_repeats_its_last_lines_and_logs_all() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let step = Step::start("failing", Duration::ZERO);
        let mut command = Command::new("sh");
        command.args(["-c", "seq 1 40; echo last words >&2; exit 3"]);
        let error = run(&mut command, &log, &step).unwrap_err().to_string();
        assert!(
            error.contains("last words") && !error.contains("\n20\n"),
            "{error}"
        );
        assert!(std::fs::read_to_string(&log).unwrap().contains("\n20\n"));
    }
}
