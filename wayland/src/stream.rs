//! The channel over a byte stream without descriptors: vsock, or a unix socket in tests.
//!
//! The session's state holds one end of a socket pair and this holds the other, `inner`. Both ends
//! of the stream are the same code; only the host end has a [`PoolStore`].
//!
//! ```text
//!   State ══ inner ── collect ──▶ outbox ──▶ link
//!                 ◀── deliver ─── inbox  ◀──
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::Shutdown;

use crate::channel::{Channel, ChannelError, FdRole, Memory, Notice, Status};
use crate::codec::Codec;
use crate::frame::{FdDesc, Frame, MAX_CONTENTS_LEN, MAX_WAYLAND_LEN};
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use crate::pipes::{Limits, Pipes};
use crate::pool::PoolStore;
use crate::socket::{self, Read};

/// How one end of the stream behaves.
#[derive(Debug, Default)]
pub struct Settings {
    /// How pixels are packed.
    pub codec: Codec,
    /// What clipboard transfers may cost.
    pub pipes: Limits,
    /// Where pools are kept; only the host end has one.
    pub pools: Option<PoolStore>,
    /// A name for the other end's logs.
    pub label: String,
    /// How fast Wayland messages may come in.
    pub rate: Option<Rate>,
}

/// A limit for bytes over time. One second's worth may come at once.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    per_second: u64,
    left: u64,
    refilled: Instant,
}

impl Rate {
    /// Returns a limit of that many bytes in a second.
    #[must_use]
    pub fn new(per_second: u64) -> Self {
        Self {
            per_second,
            left: per_second,
            refilled: Instant::now(),
        }
    }

    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
    }

    /// Returns whether nothing may come in now.
    fn exhausted(&mut self) -> bool {
        if self.left == 0 && self.refilled.elapsed() >= Duration::from_secs(1) {
            (self.left, self.refilled) = (self.per_second, Instant::now());
        }
        self.left == 0
    }
}

/// One end of the stream.
#[derive(Debug)]
pub struct Stream {
    link: OwnedFd,
    inner: OwnedFd,
    inbox: Inbox,
    outbox: Outbox,
    blocked: Blocked,
    roles: VecDeque<FdRole>,
    pools: Option<PoolStore>,
    pipes: Pipes,
    flow: Flow,
    notices: Vec<Notice>,
    rate: Option<Rate>,
    over_rate: bool,
    greeted: bool,
    ended: Ended,
}

/// Which of the two sockets have come to their end.
#[derive(Debug, Default)]
struct Ended {
    link: bool,
    inner: bool,
}

/// Wayland bytes that the session's socket had no room for.
#[derive(Debug, Default)]
struct Blocked {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

#[derive(Debug, Default)]
struct Flow {
    next_commit: u32,
    sent: VecDeque<(u32, Instant)>,
    round_trip: Option<Duration>,
    clock_offset_ns: i64,
}

impl Stream {
    /// Returns a channel on `link` and the socket that its session's state is to hold.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new(link: OwnedFd, settings: Settings) -> io::Result<(Self, OwnedFd)> {
        rustix::io::ioctl_fionbio(&link, true)?;
        let (inner, outer) = socket::pair()?;
        let mut outbox = Outbox::new(settings.codec);
        outbox.frame(&Frame::Hello {
            clock_ns: clock_ns(),
            label: &settings.label,
        });
        let stream = Self {
            link,
            inner,
            inbox: Inbox::default(),
            outbox,
            blocked: Blocked::default(),
            roles: VecDeque::new(),
            pools: settings.pools,
            pipes: Pipes::new(settings.pipes),
            flow: Flow::default(),
            notices: Vec::new(),
            rate: settings.rate,
            over_rate: false,
            greeted: false,
            ended: Ended::default(),
        };
        Ok((stream, outer))
    }

    fn receive(&mut self) -> Result<(), ChannelError> {
        match self
            .inbox
            .fill(&self.link)
            .map_err(io_error("read from the link"))?
        {
            Read::Closed => self.ended.link = true,
            Read::Empty | Read::Bytes(_) => {}
        }
        self.deliver()
    }

    /// Handles whole frames until one of them has to wait for the session.
    fn deliver(&mut self) -> Result<(), ChannelError> {
        while self.blocked.bytes.is_empty() {
            let Some((kind, payload)) = self.inbox.next_frame()? else {
                break;
            };
            let frame = Frame::parse(kind, payload)?;
            if !self.greeted && !matches!(frame, Frame::Hello { .. }) {
                return Err(ChannelError::Unexpected("first"));
            }
            match frame {
                Frame::Hello {
                    clock_ns: theirs,
                    label,
                } => {
                    tracing::debug!(label, "the other end greets");
                    self.greeted = true;
                    self.flow.clock_offset_ns = clock_difference(clock_ns(), theirs);
                }
                Frame::Pool { id, size } => host_only(&mut self.pools)?.set(id, size)?,
                Frame::Discard { id, offset, len } => {
                    host_only(&mut self.pools)?.discard(id, offset, len)?;
                }
                Frame::DropPool(id) => host_only(&mut self.pools)?.remove(id)?,
                Frame::Rows(head, packed) => host_only(&mut self.pools)?.write(&head, packed)?,
                Frame::Wayland(descs, bytes) => {
                    if let Some(rate) = &mut self.rate {
                        rate.spend(bytes.len());
                    }
                    let fds = materialise(&descs, &mut self.pools, &mut self.pipes)?;
                    let sent = socket::send_with(&self.inner, bytes, &fds)
                        .or_else(closed_is_full)
                        .map_err(io_error("pass wayland data on"))?;
                    self.blocked.bytes.extend_from_slice(&bytes[sent..]);
                    if sent == 0 {
                        self.blocked.fds = fds;
                    }
                }
                Frame::Pipe(id, bytes) => self.pipes.data(id, bytes)?,
                Frame::PipeEnd(id) => self.pipes.end(id),
                Frame::PipeBroken(id) => self.pipes.broken(id),
                Frame::PipeCredit(id, more) => self.pipes.credit(id, more),
                Frame::CommitSent(seq) => {
                    self.outbox.frame(&Frame::CommitSeen {
                        seq,
                        clock_ns: clock_ns(),
                    });
                }
                Frame::CommitSeen {
                    seq,
                    clock_ns: theirs,
                } => self.flow.seen(seq, theirs),
                Frame::Goodbye => {
                    // The session's socket hangs up; what is in it can still be read.
                    let _ = rustix::net::shutdown(&self.inner, Shutdown::Write);
                }
            }
        }
        Ok(())
    }

    fn unblock(&mut self) -> Result<(), ChannelError> {
        if self.blocked.bytes.is_empty() {
            return Ok(());
        }
        let sent = socket::send_with(&self.inner, &self.blocked.bytes, &self.blocked.fds)
            .or_else(closed_is_full)
            .map_err(io_error("pass wayland data on"))?;
        if sent > 0 {
            self.blocked.bytes.drain(..sent);
            self.blocked.fds.clear();
        }
        self.deliver()
    }

    /// Takes what the session has written and queues it as frames.
    fn collect(&mut self) -> Result<(), ChannelError> {
        let mut bytes = [0; MAX_WAYLAND_LEN];
        let mut fds = Vec::new();
        while !self.outbox.congested() && !self.ended.inner {
            let read = socket::receive(&self.inner, &mut bytes, &mut fds)
                .map_err(io_error("read the session's data"))?;
            let Read::Bytes(len) = read else {
                self.ended.inner |= read == Read::Closed;
                break;
            };
            let contents = fds
                .drain(..)
                .map(|fd| self.describe(fd))
                .collect::<Result<Vec<_>, _>>()?;
            let descs = contents.iter().map(Described::desc).collect();
            self.outbox.frame(&Frame::Wayland(descs, &bytes[..len]));
            if len < bytes.len() && contents.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn describe(&mut self, fd: OwnedFd) -> Result<Described, ChannelError> {
        match self.roles.pop_front().ok_or(ChannelError::UnknownFd)? {
            FdRole::Pool(id) => Ok(Described::Pool(id)),
            FdRole::Pipe => Ok(Described::Pipe(self.pipes.add_origin(fd)?)),
            FdRole::Contents(len) => {
                let mut bytes = vec![0; (len as usize).min(MAX_CONTENTS_LEN)];
                let got = rustix::io::pread(&fd, &mut bytes[..], 0)
                    .map_err(|error| io_error("read a file's contents")(error.into()))?;
                bytes.truncate(got);
                Ok(Described::Contents(bytes))
            }
        }
    }
}

enum Described {
    Pool(u32),
    Pipe(u32),
    Contents(Vec<u8>),
}

impl Described {
    fn desc(&self) -> FdDesc<'_> {
        match self {
            Self::Pool(id) => FdDesc::Pool(*id),
            Self::Pipe(id) => FdDesc::Pipe(*id),
            Self::Contents(bytes) => FdDesc::Contents(bytes),
        }
    }
}

impl Channel for Stream {
    fn memory(&mut self, step: Memory) {
        match step {
            Memory::Pool { id, size } => self.outbox.frame(&Frame::Pool { id, size }),
            Memory::Drop(id) => self.outbox.frame(&Frame::DropPool(id)),
            Memory::Discard { id, offset, len } => {
                self.outbox.frame(&Frame::Discard { id, offset, len });
            }
            Memory::Rows(rows) => self.outbox.rows(rows),
            Memory::Commit => {
                let seq = self.flow.sent();
                self.outbox.frame(&Frame::CommitSent(seq));
            }
        }
    }

    fn expect_fd(&mut self, role: FdRole) {
        self.roles.push_back(role);
    }

    fn status(&self) -> Status {
        Status {
            copies: true,
            congested: self.outbox.congested(),
            unseen_commits: u32::try_from(self.flow.sent.len()).unwrap_or(u32::MAX),
            pixel_bytes: self.outbox.pixel_bytes(),
            round_trip: self.flow.round_trip,
            clock_offset_ns: self.flow.clock_offset_ns,
            closed: self.ended.link,
            idle: self.outbox.is_empty() && self.pipes.is_idle() && !self.over_rate,
        }
    }

    fn interest<'a>(&'a self, accept: bool, fds: &mut Vec<PollFd<'a>>) {
        let mut link = PollFlags::empty();
        link.set(
            PollFlags::IN,
            accept && !self.over_rate && self.blocked.bytes.is_empty(),
        );
        link.set(PollFlags::OUT, !self.outbox.is_empty());
        fds.push(PollFd::new(&self.link, link));
        if !self.ended.inner {
            let mut inner = PollFlags::empty();
            inner.set(PollFlags::IN, !self.outbox.congested());
            inner.set(PollFlags::OUT, !self.blocked.bytes.is_empty());
            fds.push(PollFd::new(&self.inner, inner));
        }
        self.pipes.interest(fds);
    }

    fn pump(&mut self, accept: bool, ready: &[PollFlags]) -> Result<(), ChannelError> {
        self.unblock()?;
        let link = ready.first().copied().unwrap_or(PollFlags::empty());
        self.over_rate = self.rate.as_mut().is_some_and(Rate::exhausted);
        let accept = accept && !self.over_rate;
        if accept && link.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.receive()?;
        }
        if !self.pipes.is_idle() {
            self.pipes.service(&mut self.outbox);
            let ended = self.pipes.take_finished();
            self.notices
                .extend(ended.into_iter().map(Notice::Transferred));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<Vec<Notice>, ChannelError> {
        self.collect()?;
        match self.outbox.flush(&self.link) {
            Ok(()) => {}
            // What the other end said before it left is still to be read; the end is seen there.
            Err(error) if is_closed(&error) => self.outbox.abandon(),
            Err(error) => return Err(io_error("write to the link")(error)),
        }
        self.notices
            .extend(self.outbox.take_truncated().map(Notice::Truncated));
        Ok(std::mem::take(&mut self.notices))
    }

    fn goodbye(&mut self) {
        self.outbox.frame(&Frame::Goodbye);
    }
}

impl Flow {
    fn sent(&mut self) -> u32 {
        self.next_commit = self.next_commit.wrapping_add(1);
        self.sent.push_back((self.next_commit, Instant::now()));
        self.next_commit
    }

    fn seen(&mut self, seq: u32, their_clock_ns: u64) {
        while let Some((sent, at)) = self.sent.pop_front() {
            if sent != seq {
                continue;
            }
            let trip = at.elapsed();
            // The quickest trip bounds the error of the clock comparison best.
            if self.round_trip.is_none_or(|best| trip <= best) {
                let half = u64::try_from(trip.as_nanos() / 2).unwrap_or(0);
                self.clock_offset_ns = clock_difference(clock_ns() - half, their_clock_ns);
            }
            self.round_trip = Some(trip);
            break;
        }
    }
}

fn materialise(
    descs: &[FdDesc<'_>],
    pools: &mut Option<PoolStore>,
    pipes: &mut Pipes,
) -> Result<Vec<OwnedFd>, ChannelError> {
    let mut fds = Vec::with_capacity(descs.len());
    for desc in descs {
        fds.push(match desc {
            FdDesc::Pool(id) => host_only(pools)?.pass(*id)?,
            FdDesc::Pipe(id) => pipes.add_far(*id)?,
            FdDesc::Contents(bytes) => {
                sealed_file(bytes).map_err(io_error("keep a file's contents"))?
            }
        });
    }
    Ok(fds)
}

fn sealed_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = memfd_create(
        "wl-contents",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut rest = bytes;
    let mut at = 0;
    while !rest.is_empty() {
        let wrote = rustix::io::pwrite(&file, rest, at)?;
        rest = &rest[wrote..];
        at += wrote as u64;
    }
    fcntl_add_seals(
        &file,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file)
}

fn host_only(pools: &mut Option<PoolStore>) -> Result<&mut PoolStore, ChannelError> {
    pools.as_mut().ok_or(ChannelError::Unexpected("pool"))
}

/// A session whose socket is closed takes nothing more; its end is noticed in its own loop.
fn closed_is_full(error: io::Error) -> io::Result<usize> {
    if is_closed(&error) { Ok(0) } else { Err(error) }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

fn io_error(act: &'static str) -> impl Fn(io::Error) -> ChannelError {
    move |source| ChannelError::Io { act, source }
}

/// Returns `CLOCK_MONOTONIC` in nanoseconds, the clock of presentation times.
#[must_use]
pub fn clock_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn clock_difference(ours: u64, theirs: u64) -> i64 {
    i64::try_from(i128::from(ours) - i128::from(theirs)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
