//! Fills the buffers that the guest has given: one turn for each connection in line.

use std::io::ErrorKind;

use virtio::{Chain, Memory, Ring, read_some};

use crate::connection::{Connection, MustReset};
use crate::muxer::Muxer;
use crate::packet::{HEADER_BYTES, Header, Operation};

/// The most bytes of one turn: a pipe's worth, so that a busy stream costs few reads and another waits little.
const TURN: usize = 64 * 1024;

/// The most turns before the guest's own packets and new sockets are looked at again.
const TURNS: usize = 32;

/// How far sending came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Nothing is left.
    All,
    /// Enough for now.
    ForNow,
    /// The guest has no buffer left.
    Starved,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Something was sent, or there was nothing to send.
    Taken,
    /// The guest has no buffer left.
    Starved,
}

impl Muxer {
    /// Sends what is owed and what there is to read, one turn for each in line.
    pub(crate) fn send(&mut self, ring: &mut Ring, memory: &Memory) -> Sent {
        for _ in 0..TURNS {
            while let Some(reset) = self.resets.front() {
                if send_header(reset, ring, memory) == Turn::Starved {
                    return Sent::Starved;
                }
                self.resets.pop_front();
            }
            let Some(key) = self.ready.pop_front() else {
                return Sent::All;
            };
            let header = self.header(key, Operation::Data);
            let Some(entry) = self.connections.get_mut(&key) else {
                continue;
            };
            entry.in_line = false;
            match take_turn(&mut entry.connection, header, ring, memory) {
                Ok(Turn::Taken) => self.settle(key),
                Ok(Turn::Starved) => {
                    entry.in_line = true;
                    self.ready.push_front(key);
                    return Sent::Starved;
                }
                Err(MustReset) => self.abort(key),
            }
        }
        Sent::ForNow
    }
}

/// Sends one packet without data, or a turn's worth of data.
fn take_turn(
    connection: &mut Connection,
    mut header: Header,
    ring: &mut Ring,
    memory: &Memory,
) -> Result<Turn, MustReset> {
    let Some(operation) = connection.pay() else {
        return if connection.wants_to_read() {
            send_data(connection, header, ring, memory)
        } else {
            Ok(Turn::Taken)
        };
    };
    header.operation = Some(operation);
    if operation == Operation::Shutdown {
        header.flags = connection.shutdown_flags();
    }
    (header.allocated, header.forwarded) = connection.tell_credit();
    let turn = send_header(&header, ring, memory);
    if turn == Turn::Starved {
        connection.owe_first(operation);
    }
    Ok(turn)
}

/// Sends a packet without data.
fn send_header(header: &Header, ring: &mut Ring, memory: &Memory) -> Turn {
    while let Some(buffer) = ring.pop(memory) {
        let written = buffer.writable.write(0, &header.encode());
        if written == HEADER_BYTES {
            ring.push(memory, buffer.head, HEADER_BYTES as u32);
            return Turn::Taken;
        }
        // Too small for a header: returned empty, as there is no other use for it.
        ring.push(memory, buffer.head, 0);
    }
    Turn::Starved
}

/// Reads from the host socket straight into as many buffers as the turn and the guest's credit allow.
fn send_data(
    connection: &mut Connection,
    mut header: Header,
    ring: &mut Ring,
    memory: &Memory,
) -> Result<Turn, MustReset> {
    let most = TURN.min(connection.guest_credit() as usize);
    if most == 0 {
        return Ok(Turn::Taken);
    }
    let buffers = take_buffers(most, ring, memory);
    if buffers.is_empty() {
        return Ok(Turn::Starved);
    }
    let mut room = most;
    let mut slices = Vec::new();
    for buffer in &buffers {
        let part = buffer.writable.part(HEADER_BYTES, room);
        room = room.saturating_sub(part.len());
        slices.extend_from_slice(part.slices());
    }
    let read = match read_some(connection.stream(), &slices) {
        Ok(0) => {
            connection.host_stopped_sending();
            0
        }
        Ok(read) => read,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            connection.ran_dry();
            0
        }
        Err(_gone) => {
            give_back(buffers.len(), ring);
            return Err(MustReset);
        }
    };
    let mut left = read;
    let mut used = 0_usize;
    for buffer in &buffers {
        let here = left.min(buffer.writable.len().saturating_sub(HEADER_BYTES));
        if here == 0 {
            break;
        }
        let length = u32::try_from(here).expect("a turn is below 4 GiB");
        header.length = length;
        (header.allocated, header.forwarded) = connection.tell_credit();
        buffer.writable.write(0, &header.encode());
        ring.push(
            memory,
            buffer.head,
            length.saturating_add(HEADER_BYTES as u32),
        );
        connection.sent(length);
        left = left.saturating_sub(here);
        used = used.saturating_add(1);
    }
    give_back(buffers.len().saturating_sub(used), ring);
    Ok(Turn::Taken)
}

/// Takes buffers with room for `most` bytes of data, or all there are.
fn take_buffers<'m>(most: usize, ring: &mut Ring, memory: &'m Memory) -> Vec<Chain<'m>> {
    let mut buffers: Vec<Chain<'m>> = Vec::new();
    let mut room = 0_usize;
    while room < most {
        let Some(buffer) = ring.pop(memory) else {
            break;
        };
        let here = buffer.writable.len().saturating_sub(HEADER_BYTES);
        if here > 0 {
            room = room.saturating_add(here);
            buffers.push(buffer);
        } else if buffers.is_empty() {
            ring.push(memory, buffer.head, 0);
        } else {
            // Only what was taken last can be given back, so this one waits until it comes first.
            ring.unpop();
            break;
        }
    }
    buffers
}

fn give_back(buffers: usize, ring: &mut Ring) {
    for _ in 0..buffers {
        ring.unpop();
    }
}
