//! The control socket on the engine's side: lines of JSON, some with a descriptor beside them.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use spec::control::{Call, Line, MAX_LINE_BYTES};

/// Concierge reads its sockets; one that does not for so long has lost the machine.
const PATIENCE: Duration = Duration::from_secs(2);
/// At most one descriptor a line; a few lines may come at once.
const MAX_DESCRIPTORS: usize = 8;

/// The socket, with what has come of a line that is not whole yet.
pub(super) struct Channel {
    socket: UnixStream,
    unfinished: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Channel {
    /// Takes the socket.
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            unfinished: Vec::new(),
            descriptors: VecDeque::new(),
        })
    }

    /// Returns the calls that have come, those that need a descriptor with the next that came.
    ///
    /// # Errors
    /// The other end is closed or sends what is no call.
    pub(super) fn receive(&mut self) -> io::Result<Vec<(Call, Option<OwnedFd>)>> {
        self.fill()?;
        let mut calls = Vec::new();
        while let Some(end) = self.unfinished.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unfinished.drain(..=end).collect();
            let call: Call = serde_json::from_slice(&line).map_err(io::Error::other)?;
            // Lines that come together bring all their descriptors at once.
            let needs = call.request.needs_descriptor();
            let beside = needs.then(|| self.descriptors.pop_front()).flatten();
            calls.push((call, beside));
        }
        if self.unfinished.len() > MAX_LINE_BYTES {
            return Err(io::Error::other("a line is longer than 16 KiB"));
        }
        Ok(calls)
    }

    /// Sends a line; one that cannot be sent is lost, as its reader is.
    pub(super) fn send(&mut self, line: &Line) {
        let mut text = serde_json::to_vec(line).expect("lines are plain data");
        text.push(b'\n');
        if let Err(error) = self.socket.write_all(&text) {
            tracing::warn!(%error, "cannot write to the control socket");
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let received = match recvmsg(&self.socket, parts, &mut ancillary, flags) {
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            received => received?,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unfinished.extend_from_slice(&bytes[..received.bytes]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::AsFd as _;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use spec::control::Request;

    use super::*;

    #[test]
    fn a_descriptor_goes_to_the_line_that_needs_it() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let line = |id, request| {
            let mut text = serde_json::to_vec(&Call { id, request }).unwrap();
            text.push(b'\n');
            text
        };
        (&theirs).write_all(&line(0, Request::Info {})).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let rights = [theirs.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&rights)));
        let second = line(1, Request::Snapshot {});
        let parts = [IoSlice::new(&second)];
        sendmsg(&theirs, &parts, &mut ancillary, SendFlags::empty()).unwrap();
        let mut channel = Channel::new(ours).unwrap();
        let mut calls = Vec::new();
        while calls.len() < 2 {
            calls.extend(channel.receive().unwrap());
        }
        let has: Vec<bool> = calls.iter().map(|(_, beside)| beside.is_some()).collect();
        assert_eq!(has, [false, true]);
    }
}
