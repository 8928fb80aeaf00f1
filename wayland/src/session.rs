//! One Wayland connection on either side: a wl-proxy state and a channel, moved forward turn by turn.
//!
//! ```text
//!  Connected ── client or server gone, or an error ──▶ Lingering ── pipes drained, or LINGER ──▶ Over
//! ```
//! While lingering only transfers go on: a program that has asked for the clipboard may close its
//! connection before it reads the data.

use std::cell::{Cell, Ref};
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use thiserror::Error;
use wl_proxy::client::{Client, ClientHandler};
use wl_proxy::object::{Object, ObjectCoreApi};
use wl_proxy::state::{State, StateError, StateHandler};

use crate::channel::{Channel, ChannelError, Notice, Shared};
use crate::socket;

/// How long transfers may go on after their connection has ended.
const LINGER: Duration = Duration::from_secs(30);

/// How often a session wakes by itself while transfers are under way, to see the ones that stall.
const STALL_CHECK: Duration = Duration::from_secs(1);

/// The longest error text passed on; libwayland's own buffer for messages is 4 KiB.
const MAX_ERROR_TEXT: usize = 512;

/// Why a session could not go on.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The state refused a message or lost its server.
    #[error("wayland connection failed")]
    State(#[source] Box<dyn Error + Send + Sync>),
    /// The other end of the channel failed.
    #[error("channel failed")]
    Channel(#[from] ChannelError),
    /// The kernel refused to wait.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
    /// No descriptors left.
    #[error("cannot share a socket")]
    Share(#[source] io::Error),
    /// This side ends the session, for a reason of its own.
    #[error("session ended: {0}")]
    Ended(&'static str),
}

impl From<StateError> for SessionError {
    /// Keeps the texts only: wl-proxy's error holds objects that can't leave their thread.
    fn from(error: StateError) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self::State(text.into())
    }
}

/// What a side adds to a session's loop: timers, an X connection, statistics.
pub trait Extras {
    /// Adds descriptors to wait for.
    fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>);

    /// Handles what `poll` said of them and what the channel noticed; called on every turn, so that
    /// whatever waits for the flow to ease can look again.
    ///
    /// # Errors
    /// When the session can't go on.
    fn handle(&mut self, ready: &[PollFlags], notices: &[Notice]) -> Result<(), SessionError>;

    /// Returns when the loop is to wake at the latest.
    fn deadline(&self) -> Option<Instant>;
}

/// Which peer of the state is on this side of the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client is a program in the container; the server is the channel.
    Guest,
    /// The server is the compositor; the client is the channel.
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connected,
    Lingering(Instant),
    Over,
}

/// One connection.
pub struct Session {
    state: Rc<State>,
    client: Rc<Client>,
    channel: Shared,
    side: Side,
    /// The socket of the local peer: if it takes nothing, nothing more may come in.
    local: OwnedFd,
    client_gone: Rc<Cell<bool>>,
    suspended: bool,
    full: bool,
    phase: Phase,
    notices: Vec<Notice>,
}

impl Session {
    /// Returns a session between `state`, its one client on `client_socket`, and `channel`.
    /// `server_socket` is the one the state was made with.
    ///
    /// # Errors
    /// When the state refuses the client or the process has no descriptors left.
    pub fn new(
        state: Rc<State>,
        (client_socket, server_socket): (&Rc<OwnedFd>, &Rc<OwnedFd>),
        channel: Shared,
        side: Side,
    ) -> Result<Self, SessionError> {
        let client = state.add_client(client_socket)?;
        let client_gone = Rc::new(Cell::new(false));
        client.set_handler(Gone(client_gone.clone()));
        let raw = client_socket.try_clone().map_err(SessionError::Share)?;
        state.set_handler(ErrorRelay { client: raw });
        let local = if side == Side::Guest {
            client_socket
        } else {
            server_socket
        };
        let local = local.try_clone().map_err(SessionError::Share)?;
        Ok(Self {
            state,
            client,
            channel,
            side,
            local,
            client_gone,
            suspended: false,
            full: false,
            phase: Phase::Connected,
            notices: Vec::new(),
        })
    }

    /// Returns the client of the session.
    #[must_use]
    pub fn client(&self) -> &Rc<Client> {
        &self.client
    }

    /// Runs until the connection is over and its transfers are done.
    ///
    /// # Errors
    /// When it ended otherwise than by one of the peers leaving.
    pub fn run(mut self, extras: &mut dyn Extras) -> Result<(), SessionError> {
        let mut outcome = Ok(());
        while !self.is_over() {
            if let Err(error) = self.run_turn(extras) {
                self.close(&error);
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    fn run_turn(&mut self, extras: &mut dyn Extras) -> Result<(), SessionError> {
        self.prepare()?;
        let channel = self.channel();
        let mut fds = Vec::with_capacity(8);
        self.interest(&*channel, &mut fds);
        let first_extra = fds.len();
        extras.interest(&mut fds);
        let deadline = [self.deadline(), extras.deadline()]
            .into_iter()
            .flatten()
            .min();
        wait_until(&mut fds, deadline)?;
        let ready: Vec<_> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        drop(channel);
        let notices = self.turn(&ready[..first_extra])?;
        if self.phase == Phase::Connected {
            extras.handle(&ready[first_extra..], &notices)?;
        }
        Ok(())
    }

    /// Sends what is ready to go; to be called before waiting.
    ///
    /// # Errors
    /// When the connection can't go on; [`Session::close`] is next.
    pub fn prepare(&mut self) -> Result<(), SessionError> {
        if self.phase == Phase::Connected {
            self.state.before_poll()?;
        }
        let told = self.channel.borrow_mut().flush()?;
        self.notices.extend(told);
        let status = self.channel.borrow().status();
        match self.phase {
            Phase::Connected => {
                self.balance(status.congested);
                if status.closed {
                    self.state.destroy();
                    self.phase = Phase::Over;
                } else if self.client_gone.get() {
                    self.linger();
                }
            }
            Phase::Lingering(until) => {
                if status.closed || status.idle || Instant::now() > until {
                    self.phase = Phase::Over;
                }
            }
            Phase::Over => {}
        }
        Ok(())
    }

    /// Returns whether nothing is left to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Returns the channel, to be held while its descriptors are waited for.
    #[must_use]
    pub fn channel(&self) -> Ref<'_, dyn Channel> {
        self.channel.borrow()
    }

    /// Adds what the session waits for to `fds`.
    pub fn interest<'a>(&'a self, channel: &'a dyn Channel, fds: &mut Vec<PollFd<'a>>) {
        if self.phase == Phase::Connected {
            fds.push(PollFd::new(self.state.poll_fd(), PollFlags::IN));
            let local = if self.full {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            fds.push(PollFd::new(&self.local, local));
        }
        channel.interest(!self.full, fds);
    }

    /// Returns when the session has to be looked at even if nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if !self.notices.is_empty() || self.phase == Phase::Over {
            return Some(Instant::now());
        }
        (!self.channel.borrow().status().idle).then(|| Instant::now() + STALL_CHECK)
    }

    /// Moves what can be moved, given what `poll` said of the descriptors of [`Session::interest`],
    /// and returns what the channel has noticed.
    ///
    /// # Errors
    /// When the connection can't go on; [`Session::close`] is next.
    pub fn turn(&mut self, ready: &[PollFlags]) -> Result<Vec<Notice>, SessionError> {
        match self.phase {
            Phase::Over => {}
            Phase::Lingering(_) => self.channel.borrow_mut().pump(true, ready)?,
            Phase::Connected => {
                let ready = ready.get(2..).unwrap_or_default();
                self.full = !socket::writable(&self.local);
                self.channel.borrow_mut().pump(!self.full, ready)?;
                self.state.dispatch_available()?;
            }
        }
        Ok(std::mem::take(&mut self.notices))
    }

    /// Ends the Wayland connection because of `error`; transfers go on if the channel can.
    pub fn close(&mut self, error: &SessionError) {
        if self.phase == Phase::Connected && !matches!(error, SessionError::Channel(_)) {
            self.linger();
        } else {
            self.state.destroy();
            self.phase = Phase::Over;
        }
    }

    fn linger(&mut self) {
        self.state.destroy();
        self.full = false;
        let mut channel = self.channel.borrow_mut();
        // What the state had written, such as a last error, goes out before the farewell.
        let flushed = channel.flush();
        channel.goodbye();
        self.phase = match flushed {
            Ok(_) => Phase::Lingering(Instant::now() + LINGER),
            Err(_) => Phase::Over,
        };
    }

    /// Stops the producer while too much of its output waits.
    fn balance(&mut self, congested: bool) {
        if congested != self.suspended {
            self.suspended = congested;
            match self.side {
                Side::Guest => self.client.set_suspended(congested),
                Side::Host => self.state.set_suspended(congested),
            }
        }
    }
}

/// Waits for `fds`, but not beyond `deadline`.
///
/// # Errors
/// When the kernel refuses.
pub fn wait_until(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<(), SessionError> {
    let timeout = deadline.map(|at| {
        let left = at.saturating_duration_since(Instant::now());
        Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        })
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(SessionError::Wait(error.into())),
    }
}

struct Gone(Rc<Cell<bool>>);

impl ClientHandler for Gone {
    fn disconnected(self: Box<Self>) {
        self.0.set(true);
    }
}

/// Passes a protocol error of the server on to the client. wl-proxy destroys the state right
/// after this call and sends nothing more, so the event is written to the client's socket itself.
struct ErrorRelay {
    client: OwnedFd,
}

impl StateHandler for ErrorRelay {
    fn display_error(
        self: Box<Self>,
        object: Option<&Rc<dyn Object>>,
        _server_id: u32,
        error: u32,
        text: &str,
    ) {
        let id = object.and_then(|object| object.client_id()).unwrap_or(1);
        // A client whose socket is full can't be told; it sees the connection close.
        let _ = socket::send_some(self.client.as_fd(), &error_event(id, error, text));
    }
}

/// Returns the bytes of a `wl_display.error` event.
#[must_use]
pub fn error_event(object: u32, code: u32, text: &str) -> Vec<u8> {
    let mut end = text.len().min(MAX_ERROR_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text.as_bytes()[..end];
    let padded = (text.len() + 1).next_multiple_of(4);
    let len = u32::try_from(20 + padded).expect("the text is capped");
    let text_len = u32::try_from(text.len() + 1).expect("the text is capped");
    let mut event = Vec::with_capacity(20 + padded);
    for word in [1, len << 16, object, code, text_len] {
        event.extend_from_slice(&word.to_ne_bytes());
    }
    event.extend_from_slice(text);
    event.resize(20 + padded, 0);
    event
}
