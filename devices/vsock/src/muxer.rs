//! Who talks to whom: connections by their two ports, host sockets by their poll tokens, and whose turn it is.
//!
//! Whatever has something for the guest stands in one line, `ready`, and gets one turn before it goes to the back:
//! a connection that never stops does not hold up one that rarely speaks.

use std::collections::{HashMap, VecDeque};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::{Resource, getrlimit};
use virtio::{Buffers, Interest, Poll, Ready, limited};

use crate::connection::{Connection, Drain, MustReset};
use crate::host::{Host, Wish, read_wish};
use crate::packet::{HEADER_BYTES, HOST_CID, Header, Operation, STREAM};

/// The token of `vsock.sock`.
pub(crate) const LISTENER: u64 = 0;

/// The most host sockets open at once. A busy desktop has dozens; each may hold 256 KiB that its host process does
/// not read, so a hostile guest with an idle partner costs 256 MiB at most.
pub(crate) const MAX_PEERS: usize = 1024;

/// Descriptors that are not peers: the loop's, the rings', the log.
const OTHER_DESCRIPTORS: u64 = 64;

/// The most resets waiting for guest buffers. They answer packets to connections that do not exist; a guest that
/// sends those and takes no answers loses answers.
const MAX_RESETS: usize = 1024;

/// Host ports of connections that host processes open: the upper half, where no service listens.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) guest_port: u32,
    pub(crate) host_port: u32,
}

/// A connection, its socket's token and whether it stands in line.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) token: u64,
    pub(crate) in_line: bool,
    pub(crate) connection: Connection,
}

/// What a host socket is.
#[derive(Debug)]
enum Peer {
    /// A process at the door that has not said which port it wants.
    Newcomer(UnixStream),
    /// One end of a connection.
    Connected(Key),
    /// The end of a connection that is over for the guest.
    Draining(Drain),
}

/// All connections of one guest.
#[derive(Debug)]
pub(crate) struct Muxer {
    pub(crate) guest_cid: u64,
    host: Host,
    max_peers: usize,
    pub(crate) connections: HashMap<Key, Entry>,
    peers: HashMap<u64, Peer>,
    pub(crate) ready: VecDeque<Key>,
    pub(crate) resets: VecDeque<Header>,
    next_token: u64,
    next_port: u32,
}

impl Muxer {
    pub(crate) fn new(guest_cid: u64, host: Host) -> Self {
        let descriptors = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let allowed = usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS));
        Self {
            guest_cid,
            host,
            max_peers: allowed.unwrap_or(MAX_PEERS).min(MAX_PEERS),
            connections: HashMap::new(),
            peers: HashMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            next_token: LISTENER,
            next_port: FIRST_HOST_PORT,
        }
    }

    pub(crate) fn listener(&self) -> &UnixListener {
        &self.host.listener
    }

    /// Takes one packet from the guest.
    pub(crate) fn take_packet(&mut self, packet: &Buffers<'_>, poll: &Poll) {
        let Some(bytes) = packet.read_array::<HEADER_BYTES>(0) else {
            limited!(
                warn,
                "the guest sent a packet of {} bytes, less than a header",
                packet.len()
            );
            return;
        };
        let header = Header::decode(&bytes);
        if header.source_cid != self.guest_cid {
            limited!(
                warn,
                "the guest sent a packet as CID {}, which it is not",
                header.source_cid
            );
            return;
        }
        let data = packet.part(HEADER_BYTES, header.length as usize);
        let whole = data.len() == header.length as usize;
        let known = header.target_cid == HOST_CID && header.kind == STREAM && whole;
        match header.operation.filter(|_| known) {
            None => self.answer_reset(&header),
            Some(Operation::Request) => self.guest_asks(&header, poll),
            Some(operation) => self.guest_goes_on(operation, &header, &data),
        }
    }

    /// Takes news of a host socket.
    pub(crate) fn socket_ready(&mut self, news: Ready, poll: &Poll) {
        if news.token == LISTENER {
            while let Some(stream) = self.host.accept() {
                self.add_newcomer(stream, poll);
            }
            return;
        }
        match self.peers.get_mut(&news.token) {
            Some(Peer::Newcomer(_)) => self.hear_newcomer(news.token),
            Some(Peer::Draining(drain)) => {
                if drain.goes_on() {
                    return;
                }
                self.peers.remove(&news.token);
            }
            None => {}
            Some(&mut Peer::Connected(key)) => {
                let entry = self
                    .connections
                    .get_mut(&key)
                    .expect("each connected peer has its entry");
                match entry.connection.socket_ready(news.readable, news.writable) {
                    Ok(()) => self.settle(key),
                    Err(MustReset) => self.abort(key),
                }
            }
        }
    }

    /// Ends every connection: the driver starts afresh and knows none.
    pub(crate) fn forget_guest(&mut self) {
        self.connections.clear();
        self.peers
            .retain(|_, peer| matches!(peer, Peer::Draining(_)));
        self.ready.clear();
        self.resets.clear();
    }

    /// Puts a connection in line if it has something for the guest, or ends it if all is said.
    pub(crate) fn settle(&mut self, key: Key) {
        let Some(entry) = self.connections.get_mut(&key) else {
            return;
        };
        let connection = &entry.connection;
        if connection.is_over() {
            self.end(key);
        } else if !entry.in_line
            && (connection.owes() || (connection.wants_to_read() && connection.guest_credit() > 0))
        {
            entry.in_line = true;
            self.ready.push_back(key);
        }
    }

    /// Ends a connection for the guest; the host still gets what it has not read.
    fn end(&mut self, key: Key) {
        let Some(entry) = self.connections.remove(&key) else {
            return;
        };
        self.push_reset(self.header(key, Operation::Reset));
        match entry.connection.into_drain() {
            Some(drain) => self.peers.insert(entry.token, Peer::Draining(drain)),
            None => self.peers.remove(&entry.token),
        };
    }

    /// Ends a connection for both sides at once.
    pub(crate) fn abort(&mut self, key: Key) {
        if let Some(entry) = self.connections.remove(&key) {
            self.peers.remove(&entry.token);
            self.push_reset(self.header(key, Operation::Reset));
        }
    }

    /// Returns a header to the guest without data or credit.
    pub(crate) fn header(&self, key: Key, operation: Operation) -> Header {
        Header {
            source_cid: HOST_CID,
            target_cid: self.guest_cid,
            source_port: key.host_port,
            target_port: key.guest_port,
            length: 0,
            kind: STREAM,
            operation: Some(operation),
            flags: 0,
            allocated: 0,
            forwarded: 0,
        }
    }

    /// A guest process wants to connect to a host socket.
    fn guest_asks(&mut self, header: &Header, poll: &Poll) {
        let key = Key {
            guest_port: header.source_port,
            host_port: header.target_port,
        };
        if self.connections.contains_key(&key) {
            limited!(warn, "the guest opened a connection that it has already");
            self.abort(key);
            return;
        }
        let stream = match self.host.connect(key.host_port) {
            Ok(stream) if self.peers.len() < self.max_peers => stream,
            Ok(_) => {
                limited!(
                    warn,
                    "the guest has {} connections and gets no more",
                    self.max_peers
                );
                return self.answer_reset(header);
            }
            Err(error) => {
                tracing::debug!(
                    "nobody takes the guest's connection to {}: {error}",
                    key.host_port
                );
                return self.answer_reset(header);
            }
        };
        let Some(token) = self.watch(&stream, poll) else {
            return self.answer_reset(header);
        };
        let mut connection = Connection::accepted(stream);
        connection.learn_credit(header.allocated, header.forwarded);
        self.peers.insert(token, Peer::Connected(key));
        self.connections.insert(
            key,
            Entry {
                token,
                in_line: false,
                connection,
            },
        );
        self.settle(key);
    }

    /// The guest speaks on a connection, which may not exist.
    fn guest_goes_on(&mut self, operation: Operation, header: &Header, data: &Buffers<'_>) {
        let key = Key {
            guest_port: header.source_port,
            host_port: header.target_port,
        };
        let Some(entry) = self.connections.get_mut(&key) else {
            return self.answer_reset(header);
        };
        let connection = &mut entry.connection;
        connection.learn_credit(header.allocated, header.forwarded);
        let outcome = match operation {
            Operation::Response => connection.answered(key.host_port),
            Operation::Data => connection.deliver(data),
            Operation::Shutdown => {
                connection.guest_shut_down(header.flags);
                Ok(())
            }
            Operation::CreditRequest => {
                connection.owe(Operation::CreditUpdate);
                Ok(())
            }
            Operation::CreditUpdate | Operation::Request => Ok(()),
            Operation::Reset => {
                let token = entry.token;
                self.connections.remove(&key);
                self.peers.remove(&token);
                return;
            }
        };
        match outcome {
            Ok(()) => self.settle(key),
            Err(MustReset) => self.abort(key),
        }
    }

    fn add_newcomer(&mut self, stream: UnixStream, poll: &Poll) {
        if self.peers.len() >= self.max_peers {
            limited!(
                warn,
                "a host process was sent away: {} sockets are open",
                self.max_peers
            );
            return;
        }
        if let Some(token) = self.watch(&stream, poll) {
            self.peers.insert(token, Peer::Newcomer(stream));
        }
    }

    /// Reads what a newcomer wants, and asks the guest for it.
    fn hear_newcomer(&mut self, token: u64) {
        let Some(Peer::Newcomer(stream)) = self.peers.get(&token) else {
            return;
        };
        let guest_port = match read_wish(stream) {
            Wish::Incomplete => return,
            Wish::Port(port) => port,
            Wish::Nonsense => {
                self.peers.remove(&token);
                return;
            }
        };
        let key = self.free_key(guest_port);
        if let Some(Peer::Newcomer(stream)) = self.peers.insert(token, Peer::Connected(key)) {
            let connection = Connection::asked(stream);
            self.connections.insert(
                key,
                Entry {
                    token,
                    in_line: false,
                    connection,
                },
            );
            self.settle(key);
        }
    }

    /// Returns a key that no connection has; there are a million times more than connections.
    fn free_key(&mut self, guest_port: u32) -> Key {
        loop {
            let key = Key {
                guest_port,
                host_port: self.next_port,
            };
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_HOST_PORT);
            if !self.connections.contains_key(&key) {
                return key;
            }
        }
    }

    fn watch(&mut self, stream: &UnixStream, poll: &Poll) -> Option<u64> {
        self.next_token = self.next_token.checked_add(1)?;
        match poll.add(stream, self.next_token, Interest::Changes) {
            Ok(()) => Some(self.next_token),
            Err(error) => {
                limited!(warn, "cannot wait for a socket: {error}");
                None
            }
        }
    }

    /// Answers a packet that makes no sense, except that a reset is never answered.
    fn answer_reset(&mut self, header: &Header) {
        if header.operation != Some(Operation::Reset) {
            self.push_reset(header.reset());
        }
    }

    fn push_reset(&mut self, reset: Header) {
        if self.resets.len() < MAX_RESETS {
            self.resets.push_back(reset);
        }
    }
}
