//! The way out of a session that no longer answers, as in ssh: `~.` at the beginning of a line.

/// What the bytes typed so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// They are for the process.
    Bytes,
    /// `~?`: show what there is.
    Help,
    /// `~.`: leave.
    Leave,
}

/// Watches what is typed.
#[derive(Debug)]
pub(super) struct Escape {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    /// A `~` at the beginning of a line is held back until the next byte says what it is.
    Tilde,
    Inside,
}

impl Escape {
    pub(super) fn new() -> Self {
        Self {
            state: State::LineStart,
        }
    }

    /// Takes what was typed out of `typed` and appends to `out` what is for the process; stops behind an escape.
    /// Returns what it found.
    pub(super) fn filter(&mut self, typed: &mut &[u8], out: &mut Vec<u8>) -> Typed {
        while let Some((&byte, rest)) = typed.split_first() {
            *typed = rest;
            let found = match (self.state, byte) {
                (State::LineStart, b'~') => {
                    self.state = State::Tilde;
                    continue;
                }
                (State::Tilde, b'.') => Typed::Leave,
                (State::Tilde, b'?') => Typed::Help,
                (State::Tilde, b'~') => {
                    out.push(b'~');
                    Typed::Bytes
                }
                (State::Tilde, _) => {
                    out.extend([b'~', byte]);
                    Typed::Bytes
                }
                _ => {
                    out.push(byte);
                    Typed::Bytes
                }
            };
            let line_start = matches!(byte, b'\r' | b'\n') || found == Typed::Help;
            self.state = if line_start {
                State::LineStart
            } else {
                State::Inside
            };
            if found != Typed::Bytes {
                return found;
            }
        }
        Typed::Bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&[u8]]) -> (Vec<u8>, Typed) {
        let mut escape = Escape::new();
        let mut out = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let found = escape.filter(&mut rest, &mut out);
                if found != Typed::Bytes {
                    return (out, found);
                }
            }
        }
        (out, Typed::Bytes)
    }

    #[test]
    fn the_escape_is_seen_at_line_starts_only() {
        assert_eq!(typed(&[b"~."]), (b"".to_vec(), Typed::Leave));
        assert_eq!(typed(&[b"ls\r~", b"."]), (b"ls\r".to_vec(), Typed::Leave));
        assert_eq!(typed(&[b"a~."]), (b"a~.".to_vec(), Typed::Bytes));
        assert_eq!(typed(&[b"\r~?"]), (b"\r".to_vec(), Typed::Help));
    }

    #[test]
    fn a_tilde_that_is_no_escape_reaches_the_process() {
        assert_eq!(typed(&[b"~/x\r"]), (b"~/x\r".to_vec(), Typed::Bytes));
        assert_eq!(typed(&[b"~~."]), (b"~.".to_vec(), Typed::Bytes));
        assert_eq!(typed(&[b"~\r~."]), (b"~\r".to_vec(), Typed::Leave));
    }
}
