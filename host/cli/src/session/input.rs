//! Stdin on its way to the process.

use std::io::{self, Write as _};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use wire::proto::vsh_request::Request;
use wire::vsh;

use super::Outcome;
use super::escape::{Escape, Typed};
use super::writer::Writer;

/// What `~?` shows; the terminal is raw, so lines end in both characters.
const HELP: &[u8] = b"\r\n~.  leave, and hang up what runs here\r\n~~  send ~\r\n~?  this help\r\n";

/// Reads stdin until it ends.
#[derive(Debug)]
pub(super) struct Input {
    writer: Arc<Writer>,
    escape: Option<Escape>,
}

impl Input {
    /// Returns a reader of stdin; `typed` when it is a terminal in raw mode, where the escape is watched for.
    pub(super) fn new(writer: Arc<Writer>, typed: bool) -> Self {
        Self {
            writer,
            escape: typed.then(Escape::new),
        }
    }

    /// Sends stdin until it ends or the user leaves. When vshd takes no more, the output thread knows why.
    pub(super) fn run(mut self) -> Option<Outcome> {
        let mut buffer = vec![0; vsh::DATA_MAX];
        loop {
            // A terminal that went away reads as an error; either way there is no more input.
            let Ok(length @ 1..) = read(&mut buffer) else {
                self.writer.send(Request::Stdin(Vec::new())).ok();
                return None;
            };
            let mut typed = &buffer[..length];
            while !typed.is_empty() {
                let mut bytes = Vec::with_capacity(typed.len() + 1);
                let found = match &mut self.escape {
                    Some(escape) => escape.filter(&mut typed, &mut bytes),
                    None => {
                        bytes.extend_from_slice(std::mem::take(&mut typed));
                        Typed::Bytes
                    }
                };
                // A held-back tilde leaves nothing to send, and an empty frame would mean the end.
                if !bytes.is_empty() && self.writer.send(Request::Stdin(bytes)).is_err() {
                    return None;
                }
                match found {
                    Typed::Bytes => {}
                    // Help that cannot be shown is no reason to end the session.
                    Typed::Help => drop(io::stderr().write_all(HELP)),
                    Typed::Leave => return Some(Outcome::Left),
                }
            }
        }
    }
}

/// Reads from stdin, also from one that somebody else has made non-blocking.
fn read(buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        let stdin = rustix::stdio::stdin();
        match rustix::io::read(stdin, &mut *buffer) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None).ok();
            }
            done => return done,
        }
    }
}
