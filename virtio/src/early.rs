//! The one message that QEMU sends before its time, taken by the daemon itself.
//!
//! QEMU's network front end enables rings as soon as the device is reset, before the guest's driver has chosen
//! features. `vhost` insists that `VHOST_USER_F_PROTOCOL_FEATURES` be acknowledged first and would end the
//! connection, so until then this looks at each message before `vhost` does. Seen with QEMU 7.2.

use std::io::{IoSlice, IoSliceMut};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg,
};

/// `VHOST_USER_SET_VRING_ENABLE`.
const SET_VRING_ENABLE: u32 = 18;

/// Header flags: version 1, this is a reply, the sender wants one.
const VERSION: u32 = 1;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;

/// Request, flags and size, then the ring's index and the switch.
const MESSAGE: usize = 5;

/// Bytes after the header of the message and of its acknowledgement.
const BODY_BYTES: u32 = 8;

/// A request to switch a ring on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Enable {
    pub(crate) ring: u32,
    pub(crate) enable: bool,
    need_reply: bool,
}

/// Takes the next message from `socket` if it switches a ring, and leaves any other.
pub(crate) fn take_enable(socket: &UnixStream) -> rustix::io::Result<Option<Enable>> {
    let enable = read(socket, RecvFlags::PEEK)?;
    if enable.is_some() {
        read(socket, RecvFlags::empty())?;
    }
    Ok(enable)
}

/// Says that the ring was switched, if the front end wants to know.
pub(crate) fn acknowledge(socket: &UnixStream, message: Enable) -> rustix::io::Result<()> {
    if message.need_reply {
        let words = [SET_VRING_ENABLE, VERSION | REPLY, BODY_BYTES, 0, 0];
        let bytes = words.map(u32::to_ne_bytes).concat();
        let mut nothing = SendAncillaryBuffer::default();
        sendmsg(
            socket,
            &[IoSlice::new(&bytes)],
            &mut nothing,
            SendFlags::NOSIGNAL,
        )?;
    }
    Ok(())
}

fn read(socket: &UnixStream, flags: RecvFlags) -> rustix::io::Result<Option<Enable>> {
    let mut bytes = [0; MESSAGE * 4];
    let mut no_descriptors = RecvAncillaryBuffer::default();
    let room = &mut [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, room, &mut no_descriptors, flags)?.bytes;
    let mut words = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_ne_bytes(*word));
    let mut next = || words.next().unwrap_or_default();
    let (request, header, size, ring, switch) = (next(), next(), next(), next(), next());
    let is_enable = received == bytes.len() && request == SET_VRING_ENABLE && size == BODY_BYTES;
    let need_reply = header & NEED_REPLY != 0;
    Ok(is_enable.then_some(Enable {
        ring,
        enable: switch == 1,
        need_reply,
    }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn message(words: [u32; MESSAGE]) -> Vec<u8> {
        words.map(u32::to_ne_bytes).concat()
    }

    #[test]
    fn enable_is_taken_and_acknowledged() {
        let (daemon, mut engine) = UnixStream::pair().unwrap();
        engine
            .write_all(&message([SET_VRING_ENABLE, VERSION | NEED_REPLY, 8, 1, 1]))
            .unwrap();
        let taken = take_enable(&daemon).unwrap().unwrap();
        assert_eq!((taken.ring, taken.enable), (1, true));
        acknowledge(&daemon, taken).unwrap();
        let mut reply = vec![0; 20];
        engine.read_exact(&mut reply).unwrap();
        assert_eq!(reply, message([SET_VRING_ENABLE, VERSION | REPLY, 8, 0, 0]));
    }

    #[test]
    fn other_message_is_left() {
        let (mut daemon, mut engine) = UnixStream::pair().unwrap();
        let other = message([1, VERSION, 0, 0, 0]);
        engine.write_all(&other).unwrap();
        assert_eq!(take_enable(&daemon).unwrap(), None);
        let mut left = vec![0; 20];
        daemon.read_exact(&mut left).unwrap();
        assert_eq!(left, other);
    }
}
