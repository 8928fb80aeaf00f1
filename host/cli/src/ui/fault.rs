//! A failure as the user sees it: act, causes, one thing to do, and the log lines that belong to it.

use std::fmt::Write as _;

use serde::Serialize;
use wire::{Fault, Kind};

use super::{clean, object};

/// Returns the lines for people. `paint` colours the first label.
pub(super) fn text(fault: &Fault, paint: impl Fn(&str) -> String) -> String {
    let parts = fault.parts();
    let mut out = format!(
        "{} {} ({})\n",
        paint("error:"),
        clean(&parts.message),
        clean(&parts.code)
    );
    let mut last = parts.message.as_str();
    for cause in &parts.causes {
        // A layer that repeats its source in its own message would print it twice.
        if !last.ends_with(cause.as_str()) {
            push(&mut out, "cause:", cause);
        }
        last = cause;
    }
    for line in &parts.log {
        push(&mut out, "  |", line);
    }
    if !parts.log_path.is_empty() {
        push(&mut out, "log:  ", &parts.log_path);
    }
    if !parts.hint.is_empty() {
        push(&mut out, "hint: ", &parts.hint);
    }
    out
}

/// Returns the same as one line of JSON.
pub(super) fn json(fault: &Fault) -> String {
    #[derive(Serialize)]
    struct Error<'a> {
        kind: &'static str,
        code: &'a str,
        message: &'a str,
        causes: &'a [String],
        hint: &'a str,
        log: &'a [String],
        log_path: &'a str,
    }
    let parts = fault.parts();
    let error = Error {
        kind: kind(fault.kind()),
        code: &parts.code,
        message: &parts.message,
        causes: &parts.causes,
        hint: &parts.hint,
        log: &parts.log,
        log_path: &parts.log_path,
    };
    object("error", &error).unwrap_or_else(|fault| fault.to_string())
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Internal => "internal",
        Kind::Invalid => "invalid",
        Kind::NotFound => "not-found",
        Kind::Exists => "exists",
        Kind::Busy => "busy",
        Kind::Unreachable => "unreachable",
        Kind::Denied => "denied",
        Kind::Exhausted => "exhausted",
    }
}

fn push(out: &mut String, label: &str, text: &str) {
    writeln!(out, "{label} {}", clean(text)).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_come_once_and_the_hint_last() {
        let fault = Fault::new(Kind::NotFound, "E-X", "cannot start penguin: no image")
            .cause("no image")
            .cause("disk\x1b[2J is gone")
            .hint("build it: cargo xtask image")
            .log(vec!["last words".to_owned()], "/var/log/x");
        insta::assert_snapshot!(text(&fault, str::to_owned), @r"
        error: cannot start penguin: no image (E-X)
        cause: disk^[[2J is gone
          | last words
        log:   /var/log/x
        hint:  build it: cargo xtask image
        ");
    }
}
