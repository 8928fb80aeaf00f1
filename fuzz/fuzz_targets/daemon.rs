//! Any messages of a device daemon's to the engine: the daemon is refused or used, and nothing else happens to the machine.
//!
//! The daemon has said everything before it is asked: what a right one says, with changes. Then it is gone.

#![no_main]

use std::io::{IoSlice, IoSliceMut, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crosvm::harness::{Front, Ground};
use libfuzzer_sys::{arbitrary, fuzz_target};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg,
    sendmsg,
};
use spec::device::MacAddress;
use spec::fd::InheritedFd;
use spec::vm::{Device, Function};

/// What the engine wants to be answered, in its order: features, protocol features, queues, the channel, configuration;
/// then features, memory, requests in flight, and each of two queues; then new configuration, and where the queues stand.
const ASKED: [u32; 25] = [1, 15, 17, 21, 24, 2, 5, 31, 32, 8, 9, 10, 13, 12, 18, 8, 9, 10, 13, 12, 18, 25, 11, 11, 34];
/// A second daemon finds requests in flight recorded, and nobody has new configuration for it.
const NOT_ASKED_AGAIN: [u32; 2] = [31, 25];

const GET_FEATURES: u32 = 1;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
const GET_CONFIG: u32 = 24;
const GET_INFLIGHT_FD: u32 = 31;

/// All that a front end of this kind may want: protocol features, the modern transport, event indices.
const FEATURES: u64 = 1 << 30 | 1 << 32 | 1 << 29;
const PROTOCOL: u64 = u64::MAX;

#[derive(arbitrary::Arbitrary, Debug)]
enum Change {
    Body(Vec<u8>),
    Word(u8, u64),
    Header { request: u32, flags: u32, size: u32 },
    Drop,
    Descriptor,
    Double,
}

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    kind: u8,
    changes: Vec<(u8, Change)>,
    second: Vec<(u8, Change)>,
    requests: Vec<(u32, u32, Vec<u8>, bool)>,
    write: Vec<u8>,
}

struct Message {
    header: [u32; 3],
    body: Vec<u8>,
    descriptor: bool,
}

/// What a right daemon says.
fn right(config_bytes: usize, not_asked: &[u32]) -> Vec<Message> {
    let asked = ASKED.into_iter().filter(|request| !not_asked.contains(request));
    asked
        .map(|request| {
            let body = match request {
                GET_FEATURES => FEATURES.to_ne_bytes().to_vec(),
                GET_PROTOCOL_FEATURES => PROTOCOL.to_ne_bytes().to_vec(),
                GET_QUEUE_NUM => 4_u64.to_ne_bytes().to_vec(),
                GET_CONFIG => {
                    let flags = 1_u32.to_ne_bytes();
                    [&[0; 4][..], &(config_bytes as u32).to_ne_bytes(), &flags, &vec![9; config_bytes]].concat()
                }
                GET_INFLIGHT_FD => [&4096_u64.to_ne_bytes()[..], &[0; 8], &[2, 0, 8, 0], &[0; 4]].concat(),
                _ => vec![0; 8],
            };
            // Version 1, an answer.
            let header = [request, 5, body.len() as u32];
            Message { header, body, descriptor: request == GET_INFLIGHT_FD }
        })
        .collect()
}

fn apply(change: &Change, at: usize, messages: &mut Vec<Message>) {
    let message = &mut messages[at];
    match change {
        Change::Body(body) => {
            message.header[2] = body.len() as u32;
            message.body.clone_from(body);
        }
        Change::Word(place, value) => {
            let place = usize::from(*place);
            if let Some(word) = message.body.get_mut(place..place + 8) {
                word.copy_from_slice(&value.to_ne_bytes());
            }
        }
        Change::Header { request, flags, size } => message.header = [*request, *flags, *size],
        Change::Drop => drop(messages.remove(at)),
        Change::Descriptor => message.descriptor ^= true,
        Change::Double => {
            let twin = Message { header: message.header, body: message.body.clone(), ..*message };
            messages.insert(at, twin);
        }
    }
}

/// Says it all into one end of a pair and returns both.
fn daemon(mut messages: Vec<Message>, changes: &[(u8, Change)]) -> (UnixStream, UnixStream) {
    for (at, change) in changes.iter().take(8) {
        if !messages.is_empty() {
            let at = usize::from(*at) % messages.len();
            apply(change, at, &mut messages);
        }
    }
    let (front, back) = UnixStream::pair().unwrap();
    for message in messages {
        let bytes = [message.header.map(u32::to_ne_bytes).concat(), message.body].concat();
        say(&back, &bytes, message.descriptor);
    }
    back.shutdown(Shutdown::Write).unwrap();
    (front, back)
}

fn say(socket: &UnixStream, bytes: &[u8], with_descriptor: bool) {
    let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let descriptors = [socket.as_fd()];
    if with_descriptor {
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

/// Looks through what the engine said for the channel that it gave the daemon.
fn channel(back: &UnixStream) -> Option<UnixStream> {
    for _ in 0..64 {
        let mut bytes = [0; 4096];
        let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::DONTWAIT;
        let read = recvmsg(back, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags).ok()?;
        if read.bytes == 0 {
            return None;
        }
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                descriptors.extend(more);
            }
        }
        // Nothing else comes with a descriptor before the device works.
        if let Some(channel) = descriptors.pop() {
            return Some(channel.into());
        }
    }
    None
}

thread_local!(static GROUND: Ground = Ground::default());

fuzz_target!(|input: Input| {
    let mac = MacAddress([2; 6]);
    let (function, config_bytes) = match input.kind % 4 {
        0 => (Function::Block { queues: 2 }, 60),
        1 => (Function::Net { queue_pairs: 1, mac }, 12),
        2 => (Function::Vsock {}, 8),
        _ => (Function::Sound {}, 12),
    };
    let device = Device { name: "it".to_owned(), socket: InheritedFd(0), function, queue_size: 8 };
    GROUND.with(|ground| {
        let (socket, back) = daemon(right(config_bytes, &[]), &input.changes);
        let Some(mut front) = Front::attach(ground, &device, socket) else { return };
        if let Some(mut channel) = channel(&back) {
            for (request, flags, body, with_descriptor) in input.requests.iter().take(8) {
                let header = [*request % 12, 1 | *flags & 8, body.len() as u32];
                let bytes = [header.map(u32::to_ne_bytes).concat(), body.clone()].concat();
                say(&channel, &bytes, *with_descriptor);
            }
            // Half a message at the end.
            channel.write_all(&[0; 5]).unwrap();
            channel.shutdown(Shutdown::Write).unwrap();
        }
        for _ in 0..input.requests.len().min(9) {
            if front.answer().is_err() {
                break;
            }
        }
        let _either_is_fine = front.work(&input.write[..input.write.len().min(64)]);
        let (socket, _other_back) = daemon(right(config_bytes, &NOT_ASKED_AGAIN), &input.second);
        let _either_is_fine = front.reattach(socket);
        let _either_is_fine = front.end();
    });
});
