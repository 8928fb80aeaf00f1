//! Our own monitor as an engine on the host: `crosvm run` takes the whole [`VmSpec`] as JSON on an inherited
//! descriptor and answers JSON lines (`spec::control`) on its control socket.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use spec::control::{Call, Info, Line, MAX_LINE_BYTES, Reply, Request};
use spec::end::EngineEnd;
use spec::vm::{Function, VmSpec};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use wire::Bytes;

use super::{Answer, Control, Engine, Invocation, OwnDisk, Plug};
use crate::log::Log;

/// Requests that wait for the engine.
const QUEUE: usize = 4;

/// Our own monitor.
#[derive(Debug)]
pub(crate) struct Crosvm {
    /// The executable.
    pub(crate) program: PathBuf,
}

impl Engine for Crosvm {
    fn name(&self) -> &'static str {
        "crosvm"
    }

    fn plug(&self, _: &Function, _: &Path) -> io::Result<Plug> {
        let (engine, daemon) = StdUnixStream::pair()?;
        Ok(Plug {
            engine: engine.into(),
            daemon: daemon.into(),
            listening: false,
        })
    }

    fn serves_growing_disks(&self) -> bool {
        false
    }

    fn invocation(&self, spec: &VmSpec, _: &[OwnDisk]) -> io::Result<Invocation> {
        let mut file = File::from(memfd_create("vm-spec", MemfdFlags::CLOEXEC)?);
        serde_json::to_writer(&mut file, spec).map_err(io::Error::other)?;
        file.flush()?;
        file.rewind()?;
        let number = file.as_raw_fd().to_string();
        Ok(Invocation {
            program: self.program.clone(),
            arguments: ["run", "--spec-fd", &number].map(str::to_owned).to_vec(),
            descriptors: vec![file.into()],
        })
    }

    fn takes_new_daemons(&self) -> bool {
        true
    }

    fn end(&self, status: ExitStatus) -> Option<EngineEnd> {
        status.code().and_then(EngineEnd::from_code)
    }

    fn control(&self, stream: UnixStream, log: Log) -> Box<dyn Control> {
        let (calls, queue) = mpsc::channel(QUEUE);
        let teller = log.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, queue, &log).await {
                log.line(&format!("control: {error}"));
            }
        });
        Box::new(Conversation { calls, log: teller })
    }
}

/// A request, what travels beside it, and who hears the reply.
type Asked = (Request, Option<OwnedFd>, oneshot::Sender<Reply>);

/// A conversation with one engine, which ends with its socket.
#[derive(Debug)]
struct Conversation {
    calls: mpsc::Sender<Asked>,
    log: Log,
}

impl Conversation {
    fn call(&self, request: Request, beside: Option<OwnedFd>) -> oneshot::Receiver<Reply> {
        let (heard, answer) = oneshot::channel();
        // Full or closed: `heard` is dropped, and the answer says so.
        let _sent = self.calls.try_send((request, beside, heard));
        answer
    }

    /// As [`Conversation::call`], for what is done or not.
    fn done(&self, request: Request, beside: Option<OwnedFd>) -> Answer {
        let answer = self.call(request, beside);
        Box::pin(async { outcome(answer.await.ok()) })
    }
}

/// Returns what a reply comes to; there is none from an engine that has ended.
fn outcome(reply: Option<Reply>) -> io::Result<()> {
    match reply {
        Some(Reply::Done {} | Reply::Info { .. }) => Ok(()),
        Some(Reply::Failed { message, causes }) => {
            let parts: Vec<String> = std::iter::once(message).chain(causes).collect();
            Err(io::Error::other(parts.join(": ")))
        }
        None => Err(io::Error::new(
            io::ErrorKind::NotConnected,
            "crosvm does not listen",
        )),
    }
}

impl Control for Conversation {
    fn power_button(&self) {
        // What comes of it shows in the machine's end.
        drop(self.call(Request::PowerButton {}, None));
    }

    fn log_figures(&self) {
        let (answer, log) = (self.call(Request::Info {}, None), self.log.clone());
        tokio::spawn(async move {
            if let Ok(Reply::Info { info }) = answer.await {
                log.line(&format!("crosvm: {}", figures(&info)));
            }
        });
    }

    /// The daemon of a disk looks at its file's size whenever it is asked, which the engine now does.
    fn disk_grew(&self, name: &str, _: Bytes) -> Answer {
        let device = name.to_owned();
        self.done(Request::ConfigChanged { device }, None)
    }

    fn reattach(&self, device: &str, socket: OwnedFd) -> Answer {
        let device = device.to_owned();
        self.done(Request::Reattach { device }, Some(socket))
    }

    fn save(&self, file: OwnedFd) -> Answer {
        let saved = self.call(Request::Snapshot {}, Some(file));
        let calls = self.calls.clone();
        Box::pin(async move {
            let saved = outcome(saved.await.ok());
            if saved.is_err() {
                // It may have been stopped for it.
                let (heard, answer) = oneshot::channel();
                let _sent = calls.send((Request::Resume {}, None, heard)).await;
                let _as_it_was = answer.await;
            }
            saved
        })
    }
}

/// Returns numbers that do not depend on how fast the machine is, and two that do.
fn figures(info: &Info) -> String {
    let exits = &info.exits;
    format!(
        "{} exits so far (port {}, configuration {}, registers {}, other {}), {} page faults; \
         {} us of processor and {} us of time before the first instruction",
        exits.total(),
        exits.port,
        exits.pci_config,
        exits.mmio,
        exits.other,
        info.page_faults,
        info.start_cpu_us,
        info.start_wall_us
    )
}

async fn converse(
    stream: UnixStream,
    mut queue: mpsc::Receiver<Asked>,
    log: &Log,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut waiting = HashMap::new();
    let mut line = Vec::new();
    for id in 0.. {
        let call = loop {
            // The line is kept over turns: one that arrives in parts survives the other branch.
            let mut limited = (&mut read).take((MAX_LINE_BYTES - line.len()) as u64);
            tokio::select! {
                count = limited.read_until(b'\n', &mut line) => {
                    if count? == 0 {
                        return Ok(());
                    }
                    if line.ends_with(b"\n") {
                        heed(&line, &mut waiting, log);
                        line.clear();
                    } else if line.len() >= MAX_LINE_BYTES {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
                    }
                }
                Some(call) = queue.recv() => break call,
            }
        };
        let (request, beside, heard) = call;
        waiting.insert(id, heard);
        let mut text = serde_json::to_vec(&Call { id, request }).map_err(io::Error::other)?;
        text.push(b'\n');
        let sent = match beside {
            Some(beside) => send_beside(write.as_ref(), &text, &beside).await?,
            None => 0,
        };
        write.write_all(&text[sent..]).await?;
    }
    Ok(())
}

/// Sends `text`, or its beginning, with a descriptor; returns how many bytes.
async fn send_beside(stream: &UnixStream, text: &[u8], beside: &OwnedFd) -> io::Result<usize> {
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let rights = [beside.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&rights));
        let parts = [IoSlice::new(text)];
        Ok(sendmsg(
            stream,
            &parts,
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?)
    };
    stream.async_io(Interest::WRITABLE, send).await
}

/// Passes a reply on, and logs an event.
fn heed(line: &[u8], waiting: &mut HashMap<u64, oneshot::Sender<Reply>>, log: &Log) {
    match serde_json::from_slice(line) {
        Ok(Line::Reply { id, reply }) => {
            if let Some(heard) = waiting.remove(&id) {
                // Nobody need wait for it.
                let _unheard = heard.send(reply);
            }
        }
        Ok(Line::Event { event }) => log.line(&format!("crosvm: {event:?}")),
        Err(error) => log.line(&format!("crosvm: a line that is none: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_words_and_sometimes_a_hint() {
        use std::os::unix::process::ExitStatusExt;
        let engine = Crosvm {
            program: PathBuf::new(),
        };
        let ended = |code: i32| engine.end(ExitStatus::from_raw(code << 8));
        let kvm = ended(EngineEnd::Kvm.code().into()).unwrap();
        assert_eq!(kvm.meaning(), "the engine cannot use KVM");
        assert!(kvm.hint().unwrap().contains("doctor") && !kvm.ran());
        let reset = ended(EngineEnd::Reset.code().into()).unwrap();
        assert_eq!(reset.meaning(), "the guest asked for a restart");
        assert!(reset.hint().is_none() && reset.ran());
        assert_eq!(ended(77), None);
        assert_eq!(engine.end(ExitStatus::from_raw(9)), None);
    }

    #[tokio::test]
    async fn replies_reach_their_requests_and_events_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path().join("vm.log"));
        let (ours, theirs) = UnixStream::pair().unwrap();
        let engine = Crosvm {
            program: PathBuf::new(),
        };
        let control = engine.control(ours, log.clone());
        let (one, two) = (
            control.disk_grew("data", Bytes(1)),
            control.disk_grew("x", Bytes(2)),
        );
        let mut theirs = BufReader::new(theirs);
        let mut ids = Vec::new();
        for device in ["data", "x"] {
            let mut line = String::new();
            theirs.read_line(&mut line).await.unwrap();
            let call: Call = serde_json::from_str(&line).unwrap();
            let device = device.to_owned();
            assert_eq!(call.request, Request::ConfigChanged { device });
            ids.push(call.id);
        }
        let failed = Reply::Failed {
            message: "no such device".to_owned(),
            causes: vec!["x".to_owned()],
        };
        let event = spec::control::Event::Running {};
        for line in [
            Line::Event { event },
            Line::Reply {
                id: ids[1],
                reply: failed,
            },
            Line::Reply {
                id: ids[0],
                reply: Reply::Done {},
            },
        ] {
            let mut text = serde_json::to_vec(&line).unwrap();
            text.push(b'\n');
            theirs.write_all(&text).await.unwrap();
        }
        one.await.unwrap();
        assert_eq!(two.await.unwrap_err().to_string(), "no such device: x");
        assert_eq!(log.tail(), ["crosvm: Running"]);
        drop(theirs);
        let gone = control.disk_grew("data", Bytes(3)).await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotConnected);
    }
}
