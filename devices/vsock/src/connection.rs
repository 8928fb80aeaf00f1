//! One stream between a guest port and a host socket: credit, half-closed ends and what is owed to the guest.
//!
//! ```text
//! guest ── data packets ──▶ backlog (≤ BUFFER, the guest's credit) ──▶ host socket      inbound
//! guest ◀── data packets, as far as the guest's own credit reaches ── host socket       outbound
//! ```
//! Each way closes by itself. When both are closed, a reset ends the connection for the guest, and what the host
//! has not read yet is left to a [`Drain`].

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, recv};
use virtio::{Buffers, write_some};

use crate::packet::{Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// What the guest may have under way to one host socket: four of Linux' largest packets.
pub(crate) const BUFFER: u32 = 256 * 1024;

/// How much of the buffer the guest may believe full before it is told better.
const CREDIT_STEP: u32 = BUFFER / 2;

/// One way of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    Closed,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A host process wants it; the guest has not answered.
    Asked,
    /// Both sides agreed.
    Established,
}

/// What epoll said last, as it only speaks of changes.
#[derive(Clone, Copy, Debug)]
struct Readiness {
    readable: bool,
    writable: bool,
}

/// The guest's view of its own buffer, and how much it was sent.
#[derive(Clone, Copy, Debug, Default)]
struct GuestBuffer {
    allocated: u32,
    forwarded: u32,
    sent: u32,
}

/// What came from the guest, how much of it went on, and of how much of that the guest knows.
#[derive(Clone, Copy, Debug, Default)]
struct HostBuffer {
    received: u32,
    forwarded: u32,
    told: u32,
}

/// The host cannot take more, or the guest broke the rules: the connection must be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MustReset;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    phase: Phase,
    inbound: Way,
    outbound: Way,
    backlog: VecDeque<u8>,
    guest_buffer: GuestBuffer,
    host_buffer: HostBuffer,
    readiness: Readiness,
    owed: VecDeque<Operation>,
}

impl Connection {
    /// Returns a connection that a host process asks the guest for.
    pub(crate) fn asked(stream: UnixStream) -> Self {
        Self::new(stream, Phase::Asked, Operation::Request)
    }

    /// Returns a connection that the guest has opened to a host socket.
    pub(crate) fn accepted(stream: UnixStream) -> Self {
        Self::new(stream, Phase::Established, Operation::Response)
    }

    fn new(stream: UnixStream, phase: Phase, first: Operation) -> Self {
        Self {
            stream,
            phase,
            inbound: Way::Open,
            outbound: Way::Open,
            backlog: VecDeque::new(),
            guest_buffer: GuestBuffer::default(),
            host_buffer: HostBuffer::default(),
            // Not known yet, and asking is cheaper than missing an edge.
            readiness: Readiness {
                readable: true,
                writable: true,
            },
            owed: VecDeque::from([first]),
        }
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Takes the guest's answer to a connection that a host process asked for.
    pub(crate) fn answered(&mut self, host_port: u32) -> Result<(), MustReset> {
        if self.phase == Phase::Established {
            return Err(MustReset);
        }
        self.phase = Phase::Established;
        // The socket has not been written to, so its buffer has room for a line.
        self.stream
            .write_all(format!("OK {host_port}\n").as_bytes())
            .map_err(|_gone| MustReset)
    }

    /// Takes what every packet says about the guest's buffer.
    pub(crate) fn learn_credit(&mut self, allocated: u32, forwarded: u32) {
        self.guest_buffer.allocated = allocated;
        self.guest_buffer.forwarded = forwarded;
    }

    /// Returns how many bytes the guest has room for; a guest that lies about it has none.
    pub(crate) fn guest_credit(&self) -> u32 {
        let GuestBuffer {
            allocated,
            forwarded,
            sent,
        } = self.guest_buffer;
        allocated.saturating_sub(sent.wrapping_sub(forwarded))
    }

    /// Counts bytes that went to the guest.
    pub(crate) fn sent(&mut self, bytes: u32) {
        self.guest_buffer.sent = self.guest_buffer.sent.wrapping_add(bytes);
    }

    /// Returns what a header says about this side's buffer, and takes the guest as told.
    pub(crate) fn tell_credit(&mut self) -> (u32, u32) {
        self.host_buffer.told = self.host_buffer.forwarded;
        self.owed
            .retain(|&operation| operation != Operation::CreditUpdate);
        (BUFFER, self.host_buffer.forwarded)
    }

    /// Passes the guest's bytes on to the host, and keeps what the socket does not take now.
    pub(crate) fn deliver(&mut self, data: &Buffers<'_>) -> Result<(), MustReset> {
        let length = u32::try_from(data.len()).map_err(|_| MustReset)?;
        let waiting = self
            .host_buffer
            .received
            .wrapping_sub(self.host_buffer.forwarded);
        if self.phase == Phase::Asked || length > BUFFER.saturating_sub(waiting) {
            return Err(MustReset);
        }
        self.host_buffer.received = self.host_buffer.received.wrapping_add(length);
        if self.inbound == Way::Closed {
            // The host reads no more and the guest did not know yet.
            self.forwarded(length);
            return Ok(());
        }
        let mut written = 0;
        if self.backlog.is_empty() && self.readiness.writable {
            match write_some(&self.stream, data.slices()) {
                Ok(count) => written = count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readiness.writable = false;
                }
                Err(_gone) => {
                    self.host_stopped_reading();
                    return Ok(());
                }
            }
        }
        let mut rest = vec![0; data.len().saturating_sub(written)];
        data.read(written, &mut rest);
        self.backlog.extend(rest);
        self.forwarded(u32::try_from(written).map_err(|_| MustReset)?);
        Ok(())
    }

    /// Takes the guest's word that it will send or receive no more.
    pub(crate) fn guest_shut_down(&mut self, flags: u32) {
        if flags & SHUTDOWN_RECEIVE != 0 {
            self.outbound = Way::Closed;
            // A failure means that the host has gone, which the next write tells.
            let _ = self.stream.shutdown(Shutdown::Read);
        }
        if flags & SHUTDOWN_SEND != 0 && self.inbound == Way::Open {
            self.inbound = Way::Closed;
            self.end_after_backlog();
        }
    }

    /// Takes news from epoll.
    pub(crate) fn socket_ready(&mut self, readable: bool, writable: bool) -> Result<(), MustReset> {
        self.readiness.readable |= readable;
        if self.phase == Phase::Asked && readable && has_ended(&self.stream) {
            // The host process gave up before the guest answered.
            return Err(MustReset);
        }
        if writable {
            self.readiness.writable = true;
            self.flush();
        }
        Ok(())
    }

    /// Returns whether the socket may have bytes for the guest, and the guest may have them.
    pub(crate) fn wants_to_read(&self) -> bool {
        self.phase == Phase::Established && self.outbound == Way::Open && self.readiness.readable
    }

    /// The socket had nothing more.
    pub(crate) fn ran_dry(&mut self) {
        self.readiness.readable = false;
    }

    /// The host process sends no more.
    pub(crate) fn host_stopped_sending(&mut self) {
        self.outbound = Way::Closed;
        self.owe(Operation::Shutdown);
    }

    /// The host process reads no more; what it did not read is lost, as in a broken pipe.
    fn host_stopped_reading(&mut self) {
        self.inbound = Way::Closed;
        self.backlog = VecDeque::new();
        self.host_buffer.forwarded = self.host_buffer.received;
        self.owe(Operation::Shutdown);
    }

    /// Returns the flags of a shutdown packet.
    pub(crate) fn shutdown_flags(&self) -> u32 {
        let receive = if self.inbound == Way::Closed {
            SHUTDOWN_RECEIVE
        } else {
            0
        };
        let send = if self.outbound == Way::Closed {
            SHUTDOWN_SEND
        } else {
            0
        };
        receive | send
    }

    /// Adds a packet without data to those the guest is to get, once.
    pub(crate) fn owe(&mut self, operation: Operation) {
        if !self.owed.contains(&operation) {
            self.owed.push_back(operation);
        }
    }

    /// Puts back what could not be sent.
    pub(crate) fn owe_first(&mut self, operation: Operation) {
        self.owed.push_front(operation);
    }

    /// Returns the next packet without data, and then forgets it.
    pub(crate) fn pay(&mut self) -> Option<Operation> {
        self.owed.pop_front()
    }

    /// Returns whether there is a packet without data to send.
    pub(crate) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Returns whether nothing can flow any more either way.
    pub(crate) fn is_over(&self) -> bool {
        self.inbound == Way::Closed && self.outbound == Way::Closed && self.owed.is_empty()
    }

    /// Returns what the host has still to read, after the guest has been told that all is over.
    pub(crate) fn into_drain(self) -> Option<Drain> {
        (!self.backlog.is_empty()).then_some(Drain {
            stream: self.stream,
            backlog: self.backlog,
        })
    }

    fn flush(&mut self) {
        match flush(&self.stream, &mut self.backlog) {
            Ok(written) => {
                self.readiness.writable = self.backlog.is_empty();
                self.forwarded(written);
                if self.inbound == Way::Closed {
                    self.end_after_backlog();
                }
            }
            Err(_gone) => self.host_stopped_reading(),
        }
    }

    /// Tells the host that the guest sends no more, once it has all.
    fn end_after_backlog(&mut self) {
        if self.backlog.is_empty() {
            // A failure means that the host has gone.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// Counts bytes that left the buffer; the guest hears of it when it might be waiting for that.
    fn forwarded(&mut self, bytes: u32) {
        let buffer = &mut self.host_buffer;
        buffer.forwarded = buffer.forwarded.wrapping_add(bytes);
        if buffer.received.wrapping_sub(buffer.told) >= CREDIT_STEP
            && buffer.forwarded != buffer.told
        {
            self.owe(Operation::CreditUpdate);
        }
    }
}

/// The end of a connection that the guest has closed and the host has not read to its end.
#[derive(Debug)]
pub(crate) struct Drain {
    stream: UnixStream,
    backlog: VecDeque<u8>,
}

impl Drain {
    /// Writes what the socket takes; returns false when there is nothing left to do.
    pub(crate) fn goes_on(&mut self) -> bool {
        flush(&self.stream, &mut self.backlog).is_ok() && !self.backlog.is_empty()
    }
}

/// Returns whether a socket has no bytes and never will have.
fn has_ended(stream: &UnixStream) -> bool {
    matches!(recv(stream, &mut [0_u8; 1], RecvFlags::PEEK), Ok((0, _)))
}

/// Writes from the front of `backlog` until the socket takes no more; returns how many bytes went.
fn flush(mut stream: &UnixStream, backlog: &mut VecDeque<u8>) -> io::Result<u32> {
    let mut total = 0_u32;
    while !backlog.is_empty() {
        let (front, _) = backlog.as_slices();
        match stream.write(front) {
            Ok(written) => {
                backlog.drain(..written);
                total = total.saturating_add(u32::try_from(written).unwrap_or(u32::MAX));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(total),
            Err(error) => return Err(error),
        }
    }
    // An idle connection holds no buffer.
    *backlog = VecDeque::new();
    Ok(total)
}
