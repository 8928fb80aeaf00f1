//! The host's end: a directory of Unix sockets in the manner of Firecracker.
//!
//! A host process connects to `vsock.sock`, writes `CONNECT <port>\n` and reads `OK <host port>\n`; the stream is
//! then the guest's. A guest's connection to port P of the host becomes one to `vsock.sock_P`, where a host process
//! listens.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, connect, recv,
    socket_with,
};

/// The longest line that asks for a port: `CONNECT 4294967295\n` and some spaces.
const MAX_LINE: usize = 32;

/// What a new connection to `vsock.sock` has said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Not a whole line.
    Incomplete,
    /// The guest's port.
    Port(u32),
    /// Nonsense, or it went away.
    Nonsense,
}

/// The directory and its door.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) listener: UnixListener,
    /// Empty in the jail, where the directory is the root and the current directory.
    directory: PathBuf,
}

impl Host {
    pub(crate) fn new(listener: UnixListener, directory: PathBuf) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            directory,
        })
    }

    /// Returns the next host process that knocks, if there is one.
    pub(crate) fn accept(&self) -> Option<UnixStream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        // Any error means that there is nobody to serve: gone again, or none.
        accept_with(&self.listener, flags)
            .ok()
            .map(UnixStream::from)
    }

    /// Connects to who listens for the guest's connections to `port`.
    pub(crate) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let path = self.directory.join(format!("vsock.sock_{port}"));
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(&path)?)?;
        Ok(socket.into())
    }
}

/// Reads the line that asks for a port, and not a byte more.
pub(crate) fn read_wish(stream: &UnixStream) -> Wish {
    let mut line = [0; MAX_LINE];
    let count = match recv(stream, &mut line, RecvFlags::PEEK) {
        Ok((count, _)) if count > 0 => count,
        Err(rustix::io::Errno::AGAIN) => return Wish::Incomplete,
        Ok(_) | Err(_) => return Wish::Nonsense,
    };
    let seen = line.get(..count).unwrap_or_default();
    let Some(end) = seen.iter().position(|&byte| byte == b'\n') else {
        return if count < MAX_LINE {
            Wish::Incomplete
        } else {
            Wish::Nonsense
        };
    };
    let mut whole = vec![0; end.saturating_add(1)];
    match recv(stream, &mut whole, RecvFlags::empty()) {
        Ok((taken, _)) if taken == whole.len() => parse(&whole).map_or(Wish::Nonsense, Wish::Port),
        Ok(_) | Err(_) => Wish::Nonsense,
    }
}

fn parse(line: &[u8]) -> Option<u32> {
    let line = str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let is_connect = words.next()?.eq_ignore_ascii_case("connect");
    let port = words.next()?;
    let digits_only = port.bytes().all(|byte| byte.is_ascii_digit());
    (is_connect && digits_only && words.next().is_none()).then(|| port.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_line_is_understood() {
        assert_eq!(parse(b"CONNECT 8888\n"), Some(8888));
        assert_eq!(parse(b"connect 4294967295\r\n"), Some(u32::MAX));
        for nonsense in [
            "\n",
            "CONNECT\n",
            "CONNECT x\n",
            "CONNECT +1\n",
            "CONNECT 1 2\n",
            "GET / \n",
        ] {
            assert_eq!(parse(nonsense.as_bytes()), None, "{nonsense:?}");
        }
        assert_eq!(parse(b"CONNECT 4294967296\n"), None);
        assert_eq!(parse(b"CONNECT \xff\n"), None);
    }
}
