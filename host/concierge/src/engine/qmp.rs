//! QEMU's control socket on the host: just enough of its machine protocol to press the power button and to log
//! why the machine ended.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::Control;
use crate::log::Log;

/// QEMU's lines are below 1 KiB; one that is longer ends the conversation.
const LINE_MAX: u64 = 64 << 10;

/// Requests that wait for QEMU; more are dropped, a button need not be pressed twice.
const QUEUE: usize = 4;

/// A conversation with one QEMU.
#[derive(Debug)]
pub(super) struct Qmp {
    requests: mpsc::Sender<&'static str>,
}

impl Qmp {
    /// Starts the conversation, which ends with the socket.
    pub(super) fn start(stream: UnixStream, log: Log) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            if let Err(error) = converse(stream, queue, &log).await {
                log.line(&format!("control: {error}"));
            }
        });
        Self { requests }
    }
}

impl Control for Qmp {
    fn power_button(&self) {
        // Full or closed: it has been pressed, or there is no machine.
        let _pressed = self.requests.try_send("system_powerdown");
    }
}

async fn converse(
    stream: UnixStream,
    mut queue: mpsc::Receiver<&'static str>,
    log: &Log,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    // The protocol begins with this command; QEMU takes it before its greeting is read.
    let mut command = Some("qmp_capabilities");
    let mut line = Vec::new();
    loop {
        if let Some(command) = command.take() {
            let request = format!("{{\"execute\":\"{command}\"}}\n");
            write.write_all(request.as_bytes()).await?;
        }
        // The buffer is kept over turns: a line that arrives in parts survives the other branch.
        let mut limited = (&mut read).take(LINE_MAX - line.len() as u64);
        tokio::select! {
            count = limited.read_until(b'\n', &mut line) => {
                if count? == 0 {
                    return Ok(());
                }
                if line.ends_with(b"\n") || line.len() as u64 >= LINE_MAX {
                    heed(&line, log);
                    line.clear();
                }
            }
            Some(next) = queue.recv() => command = Some(next),
        }
    }
}

/// Logs what has to do with the machine's end, and refusals.
fn heed(line: &[u8], log: &Log) {
    let Ok(message) = serde_json::from_slice::<Value>(line) else {
        return;
    };
    if let Some(event) = message.get("event").and_then(Value::as_str)
        && matches!(
            event,
            "SHUTDOWN" | "RESET" | "GUEST_PANICKED" | "GUEST_CRASHLOADED"
        )
    {
        let reason = message.pointer("/data/reason").and_then(Value::as_str);
        log.line(&format!("qemu: {event} {}", reason.unwrap_or_default()));
    }
    if let Some(error) = message.pointer("/error/desc").and_then(Value::as_str) {
        log.line(&format!("qemu: refused: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_button_is_pressed_after_the_greeting_and_the_end_is_logged() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path().join("vm.log"));
        let (ours, theirs) = UnixStream::pair().unwrap();
        let qmp = Qmp::start(ours, log.clone());
        let mut theirs = BufReader::new(theirs);
        let mut line = String::new();
        theirs.read_line(&mut line).await.unwrap();
        assert_eq!(line, "{\"execute\":\"qmp_capabilities\"}\n");
        theirs
            .write_all(b"{\"QMP\": {}}\r\n{\"return\": {}}\r\n")
            .await
            .unwrap();
        qmp.power_button();
        line.clear();
        theirs.read_line(&mut line).await.unwrap();
        assert_eq!(line, "{\"execute\":\"system_powerdown\"}\n");
        let mut changes = log.changes();
        let event = br#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
        theirs.write_all(event).await.unwrap();
        theirs.write_all(b"\r\n").await.unwrap();
        changes.changed().await.unwrap();
        assert_eq!(log.tail(), ["qemu: SHUTDOWN guest-reset"]);
    }
}
