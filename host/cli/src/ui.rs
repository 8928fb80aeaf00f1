//! Prints: data on stdout, messages on stderr. No other module does, but for a session's own bytes.
//!
//! What came from a guest is cleaned of control characters on its way to a terminal ([`clean()`]); a table's cells
//! always are.

mod clean;
mod fault;
mod log;
mod stages;
mod table;
mod when;

use std::cell::RefCell;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::rc::Rc;

use serde::Serialize;
use wire::{Fault, Kind};

pub(crate) use clean::clean;
pub(crate) use log::LogPrinter;
pub(crate) use stages::Stages;
pub(crate) use table::Table;
pub(crate) use when::{date, span};

use crate::doctor::Status;
use crate::end;
use crate::invocation::Usage;
use crate::json::VERSION;
use crate::options::{Output, When};
use crate::transfer::Target;

/// How this call talks to its user.
#[derive(Debug, Clone)]
pub(crate) struct Ui {
    form: Form,
    quiet: bool,
    color: Color,
    input: bool,
    /// What the daemon goes on with when this call is interrupted; empty when nothing is under way.
    under_way: Rc<RefCell<String>>,
}

/// Something to read once, as JSON.
#[derive(Serialize)]
struct Note<'a> {
    text: &'a str,
}

/// What stdout carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Text for people.
    Text,
    /// JSON, one object a line.
    Json,
    /// A command's own output: everything of ours goes to stderr, as JSON when that was asked for.
    Command {
        /// Whether JSON was asked for.
        json: bool,
    },
}

#[derive(Debug, Clone, Copy)]
struct Color {
    out: bool,
    err: bool,
}

impl Ui {
    /// Returns a printer for `output`; `command` when stdout belongs to a command in the guest.
    pub(crate) fn new(output: &Output, command: bool) -> Self {
        let form = match (command, output.json) {
            (true, json) => Form::Command { json },
            (false, true) => Form::Json,
            (false, false) => Form::Text,
        };
        Self {
            form,
            quiet: output.quiet,
            color: Color {
                out: colored(output.color, io::stdout().is_terminal()),
                err: colored(output.color, io::stderr().is_terminal()),
            },
            input: !output.input.no_input
                && io::stdin().is_terminal()
                && io::stderr().is_terminal(),
            under_way: Rc::default(),
        }
    }

    /// Returns whether data is to be printed as JSON.
    pub(crate) fn json(&self) -> bool {
        matches!(self.form, Form::Json | Form::Command { json: true })
    }

    /// Returns whether only names and nothing else are to be printed.
    pub(crate) fn quiet(&self) -> bool {
        self.quiet
    }

    /// Returns whether stdout is a terminal that may be redrawn.
    pub(crate) fn can_redraw(&self) -> bool {
        self.form == Form::Text && io::stdout().is_terminal() && !dumb()
    }

    /// Prints one line of data.
    pub(crate) fn line(&self, line: &str) -> Result<(), Fault> {
        self.bytes(format!("{}\n", clean(line)).as_bytes())
    }

    /// Prints `body` as one line of JSON with the schema's version and `kind` as its type.
    pub(crate) fn object(&self, kind: &'static str, body: &impl Serialize) -> Result<(), Fault> {
        let line = object(kind, body)?;
        if matches!(self.form, Form::Command { .. }) {
            writeln!(io::stderr(), "{line}").map_err(|error| pipe(&error))
        } else {
            self.bytes(format!("{line}\n").as_bytes())
        }
    }

    /// Prints bytes of data as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Fault> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|error| pipe(&error))
    }

    /// Prints what a check found, and what mends it.
    pub(crate) fn finding(
        &self,
        status: Status,
        check: &str,
        found: &str,
        mend: Option<&str>,
    ) -> Result<(), Fault> {
        let (word, color) = match status {
            Status::Ok => ("ok  ", GREEN),
            Status::Warn => ("warn", YELLOW),
            Status::Fail => ("FAIL", RED),
        };
        let word = if self.color.out {
            format!("{color}{word}{RESET}")
        } else {
            word.to_owned()
        };
        let mut text = format!("{word}  {check:<15}  {}\n", clean(found));
        if let Some(mend) = mend {
            // Under the finding, behind its status and check.
            text.push_str(&format!("{:23}mend: {}\n", "", clean(mend)));
        }
        self.bytes(text.as_bytes())
    }

    /// Prints a table of data.
    pub(crate) fn table(&self, table: &Table) -> Result<(), Fault> {
        self.bytes(table.render(self.color.out).as_bytes())
    }

    /// Prints what is known of one thing, a line each.
    pub(crate) fn pairs(&self, pairs: &[(&str, String)]) -> Result<(), Fault> {
        let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 1;
        pairs.iter().try_for_each(|(key, value)| {
            let value = if value.is_empty() { "-" } else { value };
            self.line(&format!("{:width$} {value}", format!("{key}:")))
        })
    }

    /// Returns a printer for a call whose data goes to `target`: where that is stdout, nothing else may.
    pub(crate) fn beside(&self, target: &Target) -> Self {
        let form = match (target, self.form) {
            (Target::Stdout, Form::Json) => Form::Command { json: true },
            (Target::Stdout, _) => Form::Command { json: false },
            (Target::File { .. }, form) => form,
        };
        Self {
            form,
            ..self.clone()
        }
    }

    /// Clears the terminal before the next picture of a view that is drawn again and again.
    pub(crate) fn clear(&self) -> Result<(), Fault> {
        self.bytes(b"\x1b[H\x1b[2J")
    }

    /// Tells the user something that is no data.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet && matches!(self.form, Form::Text | Form::Command { json: false }) {
            self.message(&clean(text));
        }
    }

    /// Keeps what is to be told if this call is interrupted from now on: what goes on without it, and how to end that.
    /// Nothing, once `what` is empty.
    pub(crate) fn under_way(&self, what: impl Into<String>) {
        self.under_way.replace(what.into());
    }

    /// Tells what goes on without this call, which was interrupted.
    pub(crate) fn interrupted(&self) {
        let what = self.under_way.take();
        if what.is_empty() {
            return;
        }
        let text = format!("interrupted; {what}");
        if self.json() {
            // A closed stdout leaves nowhere to say so.
            self.object("note", &Note { text: &text }).ok();
        } else {
            self.note(&text);
        }
    }

    /// Suggests the next command.
    pub(crate) fn next(&self, command: &str) {
        self.note(&format!("next: {command}"));
    }

    /// Prints a failure with its causes, once.
    pub(crate) fn fault(&self, fault: &Fault) {
        let text = match self.form {
            Form::Json | Form::Command { json: true } => fault::json(fault),
            Form::Text | Form::Command { json: false } => {
                fault::text(fault, |label| self.paint(RED, label))
            }
        };
        self.message(text.trim_end());
    }

    /// Asks whether to go on; only `y` and `yes` mean that. Without a terminal it is an error, with `flag` as the
    /// way to answer beforehand.
    pub(crate) async fn confirm(&self, question: &str, flag: &str) -> Result<(), Fault> {
        if !self.input {
            return Err(
                Fault::new(Kind::Denied, "E-CONFIRM", "this needs to be confirmed")
                    .cause(clean(question).into_owned())
                    .hint(format!("to confirm it beforehand: {flag}")),
            );
        }
        let mut err = io::stderr().lock();
        let asked = write!(err, "{} [y/N] ", clean(question)).and_then(|()| err.flush());
        drop(err);
        // Read beside the runtime, which has to see Ctrl-C meanwhile.
        let read = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            io::stdin().lock().read_line(&mut answer).map(|_| answer)
        });
        match (asked, read.await) {
            (Ok(()), Ok(Ok(answer))) if matches!(answer.trim(), "y" | "yes") => Ok(()),
            _ => Err(Fault::new(
                Kind::Denied,
                "E-CANCELLED",
                "cancelled by the user",
            )),
        }
    }

    fn message(&self, text: &str) {
        // A closed stderr leaves nowhere to say so.
        writeln!(io::stderr(), "{text}").ok();
    }

    fn paint(&self, color: &str, text: &str) -> String {
        if self.color.err {
            format!("{color}{text}{RESET}")
        } else {
            text.to_owned()
        }
    }
}

const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[1;33m";
const RESET: &str = "\x1b[0m";

fn colored(when: When, terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto if set("NO_COLOR") => false,
        When::Auto
            if std::env::var_os("CLICOLOR_FORCE").is_some_and(|v| !v.is_empty() && v != "0") =>
        {
            true
        }
        When::Auto => terminal && !dumb(),
    }
}

fn dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}

fn object(kind: &'static str, body: &impl Serialize) -> Result<String, Fault> {
    #[derive(Serialize)]
    struct Object<'a, T> {
        version: u32,
        r#type: &'static str,
        #[serde(flatten)]
        body: &'a T,
    }
    serde_json::to_string(&Object {
        version: VERSION,
        r#type: kind,
        body,
    })
    .map_err(|error| Fault::internal(&error))
}

/// Returns the fault for output that could not be written; [`end::PIPE_CODE`] when its reader went away.
fn pipe(error: &io::Error) -> Fault {
    let code = if error.kind() == io::ErrorKind::BrokenPipe {
        end::PIPE_CODE
    } else {
        "E-OUTPUT"
    };
    Fault::new(Kind::Internal, code, "cannot write the output").because(error)
}

/// Prints what is wrong with a command line, or the help that was asked for.
pub(crate) fn usage(usage: &Usage) -> ExitCode {
    // A closed stdout or stderr leaves nowhere to say so.
    usage.error.print().ok();
    usage.status.into()
}
