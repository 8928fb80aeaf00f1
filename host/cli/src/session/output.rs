//! What the process writes, on its way to stdout and stderr, and how it ended.

use std::io::{self, BufReader, Chain, Cursor, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use wire::proto::VshReply;
use wire::proto::vsh_reply::Reply;
use wire::vsh::{self, FrameError};
use wire::{Fault, Kind};

use super::{Outcome, garbled};

/// SIGHUP, SIGKILL and SIGTERM: what processes get whose container or VM is stopped.
const ENDS: [u32; 3] = [1, 9, 15];

/// Frames from vshd, whole.
#[derive(Debug)]
pub(super) struct Reader {
    stream: BufReader<Chain<Cursor<Vec<u8>>, UnixStream>>,
    frame: Vec<u8>,
}

impl Reader {
    /// Returns a reader of `early` and then `stream`.
    pub(super) fn new(early: Vec<u8>, stream: UnixStream) -> Self {
        let chain = Cursor::new(early).chain(stream);
        Self {
            stream: BufReader::with_capacity(vsh::DATA_MAX, chain),
            frame: Vec::new(),
        }
    }

    fn next(&mut self) -> Result<Reply, Fault> {
        let mut head = [0; 4];
        self.stream
            .read_exact(&mut head)
            .map_err(|error| lost(&error))?;
        let length = u32::from_le_bytes(head) as usize;
        if length > vsh::FRAME_MAX {
            return Err(garbled(&FrameError::Long { length }));
        }
        self.frame.clear();
        self.frame.extend_from_slice(&head);
        self.frame.resize(head.len() + length, 0);
        self.stream
            .read_exact(&mut self.frame[head.len()..])
            .map_err(|error| lost(&error))?;
        let reply: VshReply = vsh::decode(&mut self.frame)
            .map_err(|error| garbled(&error))?
            .expect("the frame is whole");
        reply
            .reply
            .ok_or_else(|| Fault::new(Kind::Internal, "E-VSHD", "vshd sent an empty message"))
    }
}

/// Writes what comes until the process has ended.
pub(super) fn run(mut reader: Reader) -> Outcome {
    loop {
        let written = match reader.next() {
            Ok(Reply::Stdout(bytes)) => write_all(rustix::stdio::stdout(), &bytes),
            Ok(Reply::Stderr(bytes)) => {
                // A closed stderr is no reason to end the process.
                write_all(rustix::stdio::stderr(), &bytes).ok();
                Ok(())
            }
            Ok(Reply::Exit(exit)) if ENDS.contains(&exit.signal) => {
                return Outcome::Ended(exit.signal.cast_signed());
            }
            Ok(Reply::Exit(exit)) => {
                // Linux keeps eight bits of an exit status; what is above cannot be passed on.
                return Outcome::Exited((exit.code & 0xff) as u8);
            }
            Ok(Reply::Failed(fault)) => return Outcome::Lost(fault.into()),
            Ok(Reply::Started(_)) => Ok(()),
            Err(fault) => return Outcome::Lost(fault),
        };
        if written.is_err() {
            return Outcome::PipeGone;
        }
    }
}

/// Writes all bytes, also to an output that somebody else has made non-blocking.
fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&to, PollFlags::OUT)], None).ok();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn lost(error: &io::Error) -> Fault {
    let fault = Fault::new(
        Kind::Unreachable,
        "E-SESSION-LOST",
        "the connection to the VM ended",
    );
    let fault = match error.kind() {
        io::ErrorKind::UnexpectedEof => fault.cause("the VM stopped, or its shell server did"),
        _ => fault.because(error),
    };
    fault.hint("what the VM said last: testudo logs --console")
}
