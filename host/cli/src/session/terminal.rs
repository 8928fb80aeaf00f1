//! The user's terminal: raw for as long as a session has it, and as it was on every way out.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use wire::proto::VshWindow;

use crate::options::TerminalOptions;

/// How the terminal was before; kept outside the guard so that a panic, which aborts, can restore it too.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Rows and columns of a terminal that does not know its size, such as a serial line.
const SIZE: (u32, u32) = (24, 80);

/// Takes back what a program that was cut off has left switched on: alternate screen (without touching the
/// cursor), colours, mouse reports, focus reports, bracketed paste, hidden cursor (xterm control sequences,
/// "DEC Private Mode Reset").
const RESET: &[u8] =
    b"\x1b[?1047l\x1b[0m\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?2004l\x1b[?25h\r\n";

/// The terminal in raw mode; restored when dropped.
#[derive(Debug)]
pub(super) struct RawTerminal(());

impl RawTerminal {
    /// Makes the terminal on stdin raw; does nothing when there is none. Typed-ahead keys are kept.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let guard = Self(());
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(guard))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal raw again after the process was stopped and the shell has changed it.
pub(super) fn enter_again() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = before.as_ref() {
        let mut raw = before.clone();
        raw.make_raw();
        // The terminal may be gone by now; then there is nothing to set.
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok();
    }
}

/// Has a panic restore the terminal before its message is printed.
pub(crate) fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        print(panic);
    }));
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // The terminal may be gone by now; then there is nothing to restore.
        tcsetattr(io::stdin(), OptionalActions::Now, &before).ok();
    }
}

/// Switches off what the cut-off program has left on.
pub(super) fn reset_modes() {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        // A terminal that no longer takes bytes needs no reset.
        out.write_all(RESET).and_then(|()| out.flush()).ok();
    }
}

/// Returns whether the process is to have a terminal.
pub(super) fn wanted(options: &TerminalOptions) -> bool {
    let ours = io::stdin().is_terminal() && io::stdout().is_terminal();
    options.tty || (ours && !options.no_tty)
}

/// Returns the size of the terminal on stdout, else on stdin.
pub(super) fn window() -> VshWindow {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin()));
    match size {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => VshWindow {
            rows: size.ws_row.into(),
            columns: size.ws_col.into(),
        },
        _ => VshWindow {
            rows: SIZE.0,
            columns: SIZE.1,
        },
    }
}
