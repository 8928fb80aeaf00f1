//! Takes over the descriptors that a parent left open across `exec`, in every program concierge starts.
//!
//! A specification names them by number. A number from outside is only believed after `fstat` and the socket
//! options agree with what the specification says it is, so that a wrong number is one clear error and not
//! strange behaviour later.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: an inherited number becomes an owned descriptor"
)]

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fstat};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};
use thiserror::Error;

/// What a descriptor has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connected Unix stream socket.
    Connected,
    /// A listening Unix stream socket.
    Listening,
    /// A directory.
    Directory,
    /// A regular file or block device open for reading.
    Readable,
    /// A regular file or block device open for reading and writing.
    Writable,
    /// A character device open for reading and writing.
    Device,
    /// A pipe, socket, regular file or memory file that a message is read from to its end.
    Message,
    /// Anything that takes bytes: a log file, pipe, socket or terminal.
    Sink,
    /// Anything that gives bytes: a file, pipe, socket or terminal.
    Source,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Connected => "a connected Unix stream socket",
            Self::Listening => "a listening Unix stream socket",
            Self::Directory => "a directory",
            Self::Readable => "a file open for reading",
            Self::Writable => "a file open for reading and writing",
            Self::Device => "a character device open for reading and writing",
            Self::Message => "a pipe or file open for reading",
            Self::Sink => "open for writing",
            Self::Source => "open for reading",
        })
    }
}

/// Why an inherited descriptor was refused.
#[derive(Debug, Error)]
pub enum InheritError {
    /// 0, 1 and 2 are never handed over, negative numbers are no descriptors.
    #[error("descriptor {0} cannot be inherited: numbers start at 3")]
    Reserved(RawFd),
    /// Nothing is open under that number.
    #[error("cannot inspect descriptor {number}")]
    Inspect {
        /// The number.
        number: RawFd,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something else is open under that number.
    #[error("descriptor {number} is not {wanted}")]
    WrongKind {
        /// The number.
        number: RawFd,
        /// What the specification said.
        wanted: Kind,
    },
}

/// Takes ownership of descriptor `number` after checking that it is a `wanted`, and sets close-on-exec.
///
/// The caller names each number once: programs take all their descriptors at start, from a specification
/// that refuses the same number twice.
///
/// # Errors
/// The number is not open, or is something else; it is then left open and not owned.
pub fn take(number: RawFd, wanted: Kind) -> Result<OwnedFd, InheritError> {
    if number < 3 {
        return Err(InheritError::Reserved(number));
    }
    // SAFETY: the borrow ends before the number is owned; if nothing is open under it, or another part
    // of the process owns it, the calls made through it only read its state or fail with EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let inspect = |source: rustix::io::Errno| InheritError::Inspect {
        number,
        source: source.into(),
    };
    if !is(borrowed, wanted).map_err(inspect)? {
        return Err(InheritError::WrongKind { number, wanted });
    }
    fcntl_setfd(borrowed, FdFlags::CLOEXEC).map_err(inspect)?;
    // SAFETY: the number is open (checked above), came through `exec`, and by this function's contract no
    // other part of the process has taken it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor except the standard streams and `kept`, and gives standard input and output to no one.
///
/// To be called once at the start, when the process owns nothing but what it inherited.
///
/// # Errors
/// `/dev/null` cannot be opened, or the kernel has no close_range (before Linux 5.9).
pub fn close_all_but(kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<RawFd> = kept.iter().copied().filter(|&number| number >= 3).collect();
    kept.sort_unstable();
    let mut first = 3;
    for number in kept {
        close_range(first, number - 1)?;
        first = number + 1;
    }
    close_range(first, RawFd::MAX)?;
    let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    Ok(())
}

/// Closes the descriptors from `first` to `last`, both included; none if `last` is smaller.
fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    let (Ok(first), Ok(last)) = (libc::c_uint::try_from(first), libc::c_uint::try_from(last))
    else {
        return Ok(());
    };
    if first > last {
        return Ok(());
    }
    // SAFETY: the caller's contract: nothing in the process owns a descriptor in this range.
    match unsafe { libc::close_range(first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns whether `fd` is a `wanted`.
fn is(fd: BorrowedFd<'_>, wanted: Kind) -> rustix::io::Result<bool> {
    let kind = FileType::from_raw_mode(fstat(fd)?.st_mode);
    let flags = fcntl_getfl(fd)?;
    let mode = flags & OFlags::ACCMODE;
    let path_only = flags.contains(OFlags::PATH);
    let file = matches!(kind, FileType::RegularFile | FileType::BlockDevice) && !path_only;
    Ok(match wanted {
        Kind::Connected => unix_stream(fd, kind)? && !sockopt::socket_acceptconn(fd)?,
        Kind::Listening => unix_stream(fd, kind)? && sockopt::socket_acceptconn(fd)?,
        Kind::Directory => kind == FileType::Directory,
        Kind::Readable => file && mode != OFlags::WRONLY,
        Kind::Writable => file && mode == OFlags::RDWR,
        Kind::Device => kind == FileType::CharacterDevice && !path_only && mode == OFlags::RDWR,
        Kind::Message => {
            !path_only
                && mode != OFlags::WRONLY
                && matches!(
                    kind,
                    FileType::RegularFile | FileType::Fifo | FileType::Socket
                )
        }
        Kind::Sink => !path_only && mode != OFlags::RDONLY && kind != FileType::Directory,
        Kind::Source => !path_only && mode != OFlags::WRONLY && kind != FileType::Directory,
    })
}

/// Returns whether `fd` is a Unix stream socket.
fn unix_stream(fd: BorrowedFd<'_>, kind: FileType) -> rustix::io::Result<bool> {
    Ok(kind == FileType::Socket
        && sockopt::socket_domain(fd)? == AddressFamily::UNIX
        && sockopt::socket_type(fd)? == SocketType::STREAM)
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    fn kind_of(fd: impl Into<OwnedFd>, wanted: Kind) -> Result<OwnedFd, InheritError> {
        take(fd.into().into_raw_fd(), wanted)
    }

    #[test]
    fn a_connected_stream_is_taken() {
        let (one, _other) = UnixStream::pair().unwrap();
        kind_of(one, Kind::Connected).unwrap();
    }

    #[test]
    fn a_listener_is_not_a_connected_stream() {
        let directory = std::env::temp_dir().join(format!("inherited-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let listener = UnixListener::bind(directory.join("s")).unwrap();
        let number = listener.into_raw_fd();
        let error = take(number, Kind::Connected).unwrap_err();
        take(number, Kind::Listening).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(
            error.to_string(),
            format!("descriptor {number} is not a connected Unix stream socket")
        );
    }

    #[test]
    fn a_datagram_socket_is_not_a_stream() {
        let error = kind_of(UnixDatagram::unbound().unwrap(), Kind::Connected).unwrap_err();
        assert!(matches!(error, InheritError::WrongKind { .. }));
    }

    #[test]
    fn a_read_only_file_is_not_writable() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let error = kind_of(file, Kind::Writable).unwrap_err();
        assert!(matches!(error, InheritError::WrongKind { .. }));
    }

    #[test]
    fn a_closed_number_is_refused() {
        assert!(matches!(
            take(9_999, Kind::Sink),
            Err(InheritError::Inspect { .. })
        ));
    }

    #[test]
    fn standard_streams_are_refused() {
        assert!(matches!(
            take(2, Kind::Sink),
            Err(InheritError::Reserved(2))
        ));
    }
}
