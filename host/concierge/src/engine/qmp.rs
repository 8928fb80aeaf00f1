//! QEMU's control socket on the host: just enough of its machine protocol to press the power button, to announce a
//! grown disk, and to log why the machine ended.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use wire::Bytes;

use super::{Answer, Control};
use crate::log::Log;

/// QEMU's lines are below 1 KiB; one that is longer ends the conversation.
const LINE_MAX: u64 = 64 << 10;

/// Requests that wait for QEMU.
const QUEUE: usize = 4;

/// A request and who hears its answer.
type Call = (Value, oneshot::Sender<io::Result<()>>);

/// A conversation with one QEMU.
#[derive(Debug)]
pub(super) struct Qmp {
    calls: mpsc::Sender<Call>,
}

impl Qmp {
    /// Starts the conversation, which ends with the socket.
    pub(super) fn start(stream: UnixStream, log: Log) -> Self {
        let (calls, queue) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            if let Err(error) = converse(stream, queue, &log).await {
                log.line(&format!("control: {error}"));
            }
        });
        Self { calls }
    }

    fn call(&self, request: Value) -> oneshot::Receiver<io::Result<()>> {
        let (heard, answer) = oneshot::channel();
        // Full or closed: `heard` is dropped, and the answer says so.
        let _sent = self.calls.try_send((request, heard));
        answer
    }
}

impl Control for Qmp {
    fn power_button(&self) {
        // What comes of it shows in the machine's end.
        drop(self.call(json!({"execute": "system_powerdown"})));
    }

    /// QEMU counts nothing of interest.
    fn log_figures(&self) {}

    fn disk_grew(&self, name: &str, size: Bytes) -> Answer {
        let arguments = json!({"node-name": name, "size": size.0});
        let answer = self.call(json!({"execute": "block_resize", "arguments": arguments}));
        Box::pin(async {
            let gone = || io::Error::new(io::ErrorKind::NotConnected, "QEMU does not listen");
            answer.await.unwrap_or_else(|_| Err(gone()))
        })
    }

    fn reattach(&self, _: &str, _: OwnedFd) -> Answer {
        Box::pin(async { Err(cannot("go on with another daemon")) })
    }

    fn save(&self, _: OwnedFd) -> Answer {
        Box::pin(async { Err(cannot("save a machine whose devices are daemons")) })
    }
}

fn cannot(act: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("QEMU cannot {act}"))
}

async fn converse(
    stream: UnixStream,
    mut queue: mpsc::Receiver<Call>,
    log: &Log,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    // The protocol begins with this command, whose answer nobody waits for; QEMU takes it before its greeting
    // is read. Answers come in the order of the commands.
    let (nobody, _) = oneshot::channel();
    let mut next = Some((json!({"execute": "qmp_capabilities"}), nobody));
    let mut waiting = VecDeque::new();
    let mut line = Vec::new();
    loop {
        if let Some((request, heard)) = next.take() {
            write.write_all(format!("{request}\n").as_bytes()).await?;
            waiting.push_back(heard);
        }
        // The line is kept over turns: one that arrives in parts survives the other branch.
        let mut limited = (&mut read).take(LINE_MAX - line.len() as u64);
        tokio::select! {
            count = limited.read_until(b'\n', &mut line) => {
                if count? == 0 {
                    return Ok(());
                }
                if line.ends_with(b"\n") {
                    heed(&line, &mut waiting, log);
                    line.clear();
                } else if line.len() as u64 >= LINE_MAX {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
                }
            }
            Some(call) = queue.recv() => next = Some(call),
        }
    }
}

/// Passes answers on, and logs what has to do with the machine's end.
fn heed(line: &[u8], waiting: &mut VecDeque<oneshot::Sender<io::Result<()>>>, log: &Log) {
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
    let refused = message.pointer("/error/desc").and_then(Value::as_str);
    if refused.is_none() && message.get("return").is_none() {
        return;
    }
    if let Some(heard) = waiting.pop_front() {
        // Nobody need wait for it.
        let _unheard =
            heard.send(refused.map_or(Ok(()), |refused| Err(io::Error::other(refused.to_owned()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QEMU's end of the conversation.
    struct Peer {
        stream: BufReader<UnixStream>,
        log: Log,
        _folder: tempfile::TempDir,
    }

    impl Peer {
        async fn new() -> (Qmp, Self) {
            let folder = tempfile::tempdir().unwrap();
            let log = Log::open(folder.path().join("vm.log"));
            let (ours, theirs) = UnixStream::pair().unwrap();
            let qmp = Qmp::start(ours, log.clone());
            let mut peer = Self {
                stream: BufReader::new(theirs),
                log,
                _folder: folder,
            };
            assert_eq!(peer.hears().await, json!({"execute": "qmp_capabilities"}));
            peer.says("{\"QMP\": {}}\r\n{\"return\": {}}").await;
            (qmp, peer)
        }

        async fn hears(&mut self) -> Value {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            serde_json::from_str(&line).unwrap()
        }

        async fn says(&mut self, line: &str) {
            self.stream.write_all(line.as_bytes()).await.unwrap();
            self.stream.write_all(b"\r\n").await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_button_is_pressed_and_the_end_is_logged() {
        let (qmp, mut peer) = Peer::new().await;
        qmp.power_button();
        assert_eq!(peer.hears().await, json!({"execute": "system_powerdown"}));
        let mut changes = peer.log.changes();
        peer.says(r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#)
            .await;
        changes.changed().await.unwrap();
        assert_eq!(peer.log.tail(), ["qemu: SHUTDOWN guest-reset"]);
    }

    #[tokio::test]
    async fn answers_reach_the_request_they_belong_to() {
        let (qmp, mut peer) = Peer::new().await;
        let (one, two) = (
            qmp.disk_grew("data", Bytes(5)),
            qmp.disk_grew("data", Bytes(6)),
        );
        let first = peer.hears().await;
        assert_eq!(first["arguments"], json!({"node-name": "data", "size": 5}));
        peer.says(r#"{"event": "RTC_CHANGE", "data": {}}"#).await;
        peer.says(r#"{"return": {}}"#).await;
        peer.says(r#"{"error": {"class": "GenericError", "desc": "no such node"}}"#)
            .await;
        one.await.unwrap();
        assert_eq!(two.await.unwrap_err().to_string(), "no such node");
        drop(peer);
        let gone = loop {
            match qmp.disk_grew("data", Bytes(7)).await {
                Err(error) => break error,
                Ok(()) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(gone.kind(), io::ErrorKind::NotConnected);
    }
}
