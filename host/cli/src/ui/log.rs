//! Logs on their way to stdout: bytes as they are into a file or pipe, whole cleaned lines onto a terminal.

use std::io::{self, IsTerminal as _};

use wire::Fault;

use super::{Ui, clean};

/// A line longer than this is printed in pieces, so that a guest that never ends a line cannot fill our memory.
const LINE_MAX: usize = 64 << 10;

/// Prints a log that arrives in chunks.
#[derive(Debug)]
pub(crate) struct LogPrinter<'a> {
    ui: &'a Ui,
    raw: bool,
    request: Option<String>,
    line: Vec<u8>,
}

impl<'a> LogPrinter<'a> {
    /// Returns a printer of all lines, or of those that bear the request id `request`.
    pub(crate) fn new(ui: &'a Ui, request: Option<String>) -> Self {
        Self {
            ui,
            raw: !io::stdout().is_terminal(),
            request,
            line: Vec::new(),
        }
    }

    /// Prints the next chunk, as far as its lines are whole.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), Fault> {
        if self.raw && self.request.is_none() {
            return self.ui.bytes(chunk);
        }
        let mut out = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() >= LINE_MAX {
                self.take_line(&mut out);
            }
        }
        self.ui.bytes(&out)
    }

    /// Prints what is left when the log has ended without a line end.
    pub(crate) fn finish(mut self) -> Result<(), Fault> {
        let mut out = Vec::new();
        if !self.line.is_empty() {
            self.take_line(&mut out);
        }
        self.ui.bytes(&out)
    }

    fn take_line(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        if self
            .request
            .as_ref()
            .is_some_and(|id| !text.contains(id.as_str()))
        {
            return;
        }
        if self.raw {
            out.extend_from_slice(&line);
        } else {
            out.extend_from_slice(clean(text.trim_end_matches(['\r', '\n'])).as_bytes());
            out.push(b'\n');
        }
    }
}
