//! The files of a request as readers, one after the other.

use std::io::{self, Read};

use tokio::sync::mpsc;
use wire::Fault;
use wire::proto::FileChunk;

use super::WAITING;

/// Files that arrive in order through one stream.
#[derive(Debug)]
pub(in super::super) struct Incoming {
    chunks: mpsc::Receiver<Result<FileChunk, Fault>>,
    /// The piece being read and how much of it has been.
    current: Option<(FileChunk, usize)>,
    /// The stream ended with an error; it goes with the verb's own.
    failed: Option<Fault>,
}

impl Incoming {
    pub(in super::super) fn new() -> (mpsc::Sender<Result<FileChunk, Fault>>, Self) {
        let (feed, chunks) = mpsc::channel(WAITING);
        (
            feed,
            Self {
                chunks,
                current: None,
                failed: None,
            },
        )
    }

    /// Returns the file at `index`; pieces of earlier ones that were not read are passed over.
    pub(super) fn file(&mut self, index: u32) -> Part<'_> {
        Part {
            incoming: self,
            index,
        }
    }

    /// Makes sure that the current piece has unread bytes; `false` at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        loop {
            if let Some((chunk, read)) = &self.current
                && *read < chunk.data.len()
            {
                return Ok(true);
            }
            if let Some(fault) = &self.failed {
                return Err(io::Error::other(fault.clone()));
            }
            let earlier = self.current.take().map_or(0, |(chunk, _)| chunk.index);
            match self.chunks.blocking_recv() {
                None => return Ok(false),
                Some(Err(fault)) => self.failed = Some(fault),
                Some(Ok(chunk)) if chunk.index < earlier => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the pieces of the files are out of order",
                    ));
                }
                Some(Ok(chunk)) => self.current = Some((chunk, 0)),
            }
        }
    }
}

/// One of the files.
#[derive(Debug)]
pub(super) struct Part<'a> {
    incoming: &'a mut Incoming,
    index: u32,
}

impl Read for Part<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.incoming.fill()? {
            let (chunk, read) = self
                .incoming
                .current
                .as_mut()
                .expect("`fill` has just found it");
            if chunk.index > self.index {
                return Ok(0);
            }
            if chunk.index < self.index {
                *read = chunk.data.len();
                continue;
            }
            let rest = &chunk.data[*read..];
            let length = rest.len().min(out.len());
            out[..length].copy_from_slice(&rest[..length]);
            *read += length;
            return Ok(length);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(chunks: &[(u32, &str)]) -> Incoming {
        let (feed, incoming) = Incoming::new();
        let chunks: Vec<_> = chunks
            .iter()
            .map(|(index, data)| FileChunk {
                index: *index,
                data: data.as_bytes().to_vec(),
            })
            .collect();
        std::thread::spawn(move || {
            for chunk in chunks {
                let _ = feed.blocking_send(Ok(chunk));
            }
        });
        incoming
    }

    fn text(incoming: &mut Incoming, index: u32) -> io::Result<String> {
        let mut text = String::new();
        incoming.file(index).read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn each_file_ends_where_the_next_begins() {
        let mut all = incoming(&[(0, "ab"), (0, ""), (0, "c"), (1, "de"), (1, "f")]);
        assert_eq!(text(&mut all, 0).unwrap(), "abc");
        assert_eq!(text(&mut all, 1).unwrap(), "def");
        assert_eq!(text(&mut all, 2).unwrap(), "");
    }

    #[test]
    fn a_file_may_be_passed_over_and_none_may_come_back() {
        let mut all = incoming(&[(0, "ab"), (1, "cd")]);
        assert_eq!(text(&mut all, 1).unwrap(), "cd");
        let mut all = incoming(&[(1, "ab"), (0, "cd")]);
        assert!(text(&mut all, 1).is_err());
    }

    #[test]
    fn a_broken_stream_is_not_the_end_of_a_file() {
        let (feed, mut all) = Incoming::new();
        std::thread::spawn(move || {
            let _ = feed.blocking_send(Ok(FileChunk {
                index: 0,
                data: b"ab".to_vec(),
            }));
            let gone = Fault::new(wire::Kind::Unreachable, "E-UNREACHABLE", "gone");
            let _ = feed.blocking_send(Err(gone));
        });
        assert_eq!(text(&mut all, 0).unwrap_err().to_string(), "gone");
    }
}
