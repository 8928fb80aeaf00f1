//! Where the console's output goes, on the host: one descriptor, whose reader may be slow, stopped or gone.
//!
//! A guest's kernel waits for each line that it prints, with interrupts off. So the reader gets a moment once; after that,
//! what does not fit is dropped until there is room again, and a line says how much.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What a reader that is only busy needs; guests notice a processor that hangs after some 20 s.
const PATIENCE: Duration = Duration::from_secs(1);

/// A pipe with room takes this much without a wait (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;

/// The descriptor and what its reader has missed.
pub(crate) struct Output {
    file: Arc<File>,
    patience: Duration,
    /// Bytes that were dropped since there was room last.
    missed: u64,
    failed: bool,
}

impl Output {
    /// Prints to `file`.
    pub(crate) fn new(file: Arc<File>) -> Self {
        Self {
            file,
            patience: PATIENCE,
            missed: 0,
            failed: false,
        }
    }

    /// Prints all of `text`, or drops what nobody reads; does not wait any more once `stop` is readable.
    pub(crate) fn print(&mut self, text: &mut impl Read, stop: BorrowedFd<'_>) {
        let mut piece = [0; PIECE];
        loop {
            let length = match text.read(&mut piece) {
                Ok(0) => return,
                Ok(length) => length,
                Err(error) => {
                    tracing::debug!(%error, "the guest's text is not in its memory");
                    return;
                }
            };
            if let Err(error) = self.pass(&piece[..length], stop) {
                // Nobody reads any more: the guest goes on without a console.
                tracing::warn!(%error, "cannot write the guest's console");
                self.failed = true;
            }
        }
    }

    /// Writes one piece if there is room for it.
    fn pass(&mut self, piece: &[u8], stop: BorrowedFd<'_>) -> io::Result<()> {
        if self.failed {
            return Ok(());
        }
        let patience = if self.missed == 0 {
            self.patience
        } else {
            Duration::ZERO
        };
        if !has_room(&self.file, Some(stop), patience)? {
            self.missed += piece.len() as u64;
            return Ok(());
        }
        if self.missed != 0 {
            let note = format!("\n[{} bytes of the console are lost]\n", self.missed);
            (&*self.file).write_all(note.as_bytes())?;
            self.missed = 0;
            return self.pass(piece, stop);
        }
        (&*self.file).write_all(piece)
    }
}

/// Returns whether `file` takes a piece now, or within `patience` unless `stop` becomes readable before.
///
/// # Errors
/// The host cannot wait.
pub(crate) fn has_room(
    file: &File,
    stop: Option<BorrowedFd<'_>>,
    patience: Duration,
) -> io::Result<bool> {
    let mut polled = vec![PollFd::from_borrowed_fd(file.as_fd(), PollFlags::OUT)];
    polled.extend(stop.map(|stop| PollFd::from_borrowed_fd(stop, PollFlags::IN)));
    let limit = Timespec::try_from(patience).map_err(io::Error::other)?;
    loop {
        match poll(&mut polled, Some(&limit)) {
            // A signal makes the wait longer at most.
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(!polled[0].revents().is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;
    use crate::event::descriptor;

    fn pipe(patience: Duration) -> (File, Output) {
        let (reader, writer) = io::pipe().unwrap();
        let mut output = Output::new(Arc::new(OwnedFd::from(writer).into()));
        output.patience = patience;
        (OwnedFd::from(reader).into(), output)
    }

    #[test]
    fn a_reader_that_does_not_read_stops_nobody_and_learns_what_it_missed() {
        let (mut reader, mut output) = pipe(Duration::from_millis(1));
        let stop = EventFd::new(EFD_NONBLOCK).unwrap();
        // More than any pipe holds by itself.
        let text = vec![b'x'; 1 << 20];
        output.print(&mut text.as_slice(), descriptor(&stop));
        let missed = output.missed;
        assert!(missed > 0 && !output.failed);
        let mut seen = vec![0; (1 << 20) - usize::try_from(missed).unwrap()];
        reader.read_exact(&mut seen).unwrap();
        assert_eq!(seen, text[..seen.len()]);
        output.print(&mut &b"more"[..], descriptor(&stop));
        drop(output);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(
            rest,
            format!("\n[{missed} bytes of the console are lost]\nmore")
        );
    }

    #[test]
    fn a_wait_for_the_reader_ends_with_the_device() {
        let (_reader, mut output) = pipe(Duration::from_secs(1 << 30));
        let stop = EventFd::new(EFD_NONBLOCK).unwrap();
        stop.write(1).unwrap();
        output.print(&mut vec![b'x'; 1 << 20].as_slice(), descriptor(&stop));
        assert!(output.missed > 0);
    }

    #[test]
    fn a_reader_that_is_gone_is_not_written_to_again() {
        let (reader, mut output) = pipe(PATIENCE);
        let stop = EventFd::new(EFD_NONBLOCK).unwrap();
        drop(reader);
        output.print(&mut &b"text"[..], descriptor(&stop));
        assert!(output.failed && output.missed == 0);
    }
}
