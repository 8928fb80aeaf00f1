//! The seam between a Wayland session and whatever carries it to the other side.
//!
//! There are two implementations: [`crate::direct::Direct`], one unix socket on one machine, and
//! [`crate::stream::Stream`], frames on vsock or any byte stream. A virtio-gpu cross-domain context
//! would be a third: it would allocate host blobs and copy in `memory`.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use thiserror::Error;

use crate::frame::FrameError;
use crate::pipes::{PipeError, Transfer};
use crate::pool::PoolError;
use crate::rows::Rows;

/// A channel as handlers of Wayland messages hold it.
pub type Shared = Rc<RefCell<dyn Channel>>;

/// What the next descriptor that a handler sends to the other side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdRole {
    /// Shared memory announced with a pool message.
    Pool(u32),
    /// The write end of a pipe.
    Pipe,
    /// A file of that many bytes which is only read, such as a keymap.
    Contents(u32),
}

/// What a session must know of its channel to keep the flow even.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question that a session asks"
)]
pub struct Status {
    /// Pixels must be announced and copied; otherwise descriptors pass and both sides share memory.
    pub copies: bool,
    /// So much waits that the producer should pause.
    pub congested: bool,
    /// Commits with pixels that the other side has not yet seen.
    pub unseen_commits: u32,
    /// Pixel bytes sent so far.
    pub pixel_bytes: u64,
    /// From sending a commit to knowing it seen, last time.
    pub round_trip: Option<Duration>,
    /// To be added to the other side's `CLOCK_MONOTONIC` to get this side's, in nanoseconds.
    pub clock_offset_ns: i64,
    /// The connection is over; nothing more will come.
    pub closed: bool,
    /// Nothing is queued and no pipe is open.
    pub idle: bool,
}

/// What went wrong on a channel; the session ends.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The link or a descriptor failed.
    #[error("cannot {act}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The other end does not keep to the language.
    #[error("malformed frame")]
    Frame(#[from] FrameError),
    /// The other end misuses a pool.
    #[error("pool request refused")]
    Pool(#[from] PoolError),
    /// The other end misuses a pipe.
    #[error("pipe request refused")]
    Pipe(#[from] PipeError),
    /// A descriptor left a session without anyone having said what it is.
    #[error("a descriptor of unknown meaning")]
    UnknownFd,
    /// A frame that this side never accepts, or accepts only after a greeting.
    #[error("unexpected {0} frame")]
    Unexpected(&'static str),
}

/// What a client does to its shared memory.
#[derive(Debug)]
pub enum Memory {
    /// Pool `id` is new, or has grown, and has `size` bytes.
    Pool {
        /// The pool.
        id: u32,
        /// Its size.
        size: u32,
    },
    /// Pool `id` has no user any more.
    Drop(u32),
    /// Nobody will read these bytes of pool `id` before they are sent again.
    Discard {
        /// The pool.
        id: u32,
        /// Where they start.
        offset: u32,
        /// How many.
        len: u32,
    },
    /// These pixels have changed.
    Rows(Rows),
    /// All pixels of one commit have been sent.
    Commit,
}

/// One Wayland connection's way across the border.
pub trait Channel {
    /// Passes on what a client does to its shared memory. It arrives before any Wayland bytes that
    /// are sent later.
    fn memory(&mut self, step: Memory);

    /// Says what the next descriptor sent to the other side is.
    fn expect_fd(&mut self, role: FdRole);

    /// Returns the state of the flow.
    fn status(&self) -> Status;

    /// Adds what this channel waits for; `accept` says whether it may take in more from the far side.
    fn interest<'a>(&'a self, accept: bool, fds: &mut Vec<PollFd<'a>>);

    /// Moves what can be moved, given what `poll` said of the descriptors of [`Channel::interest`].
    ///
    /// # Errors
    /// When the connection can't go on.
    fn pump(&mut self, accept: bool, ready: &[PollFlags]) -> Result<(), ChannelError>;

    /// Takes what the session has just produced and sends what the link takes.
    ///
    /// # Errors
    /// When the connection can't go on.
    fn flush(&mut self) -> Result<Vec<Notice>, ChannelError>;

    /// Tells the other side that the Wayland connection is over.
    fn goodbye(&mut self);
}

/// Something a session should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The file of this pool is shorter than the client said.
    Truncated(u32),
    /// A transfer has ended.
    Transferred(Transfer),
}
