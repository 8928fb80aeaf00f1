//! `crosh`: a prompt that offers the VM tools and a few harmless queries, and nothing of the host: no shell, no
//! program but this one, no file that the user names. Fit as a login shell for managed machines.
//!
//! A line becomes words ([`words`]), the words one of the known commands ([`command`]), and that runs as this same
//! binary under another name, so that it leaves nothing behind in the prompt's own process.

mod command;
mod prompt;
mod words;

use std::io::{self, BufRead as _, IsTerminal as _};

use clap::Parser;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use wire::{Fault, Kind};

use crate::end::End;
use crate::options::Output;
use crate::ui::Ui;
use command::{Command, Step};

/// A restricted prompt: VM tools, and nothing of the host.
#[derive(Debug, Parser)]
#[command(name = "crosh", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Crosh {
    /// Run this one command instead of prompting
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

const EXAMPLES: &str = "\
Examples:
  crosh
  crosh -- vsh termina penguin

Type help at the prompt for its commands. See also testudo(1), vmc(1), vsh(1).";

/// A prompt that is still to be shown.
#[derive(Debug)]
pub(crate) struct Prompt {
    command: Vec<String>,
}

/// Carries the call out: everything happens at the prompt.
pub(crate) fn run(crosh: Crosh) -> End {
    End::Prompt(Prompt {
        command: crosh.command,
    })
}

impl Prompt {
    /// Runs the one command, or the lines on stdin, or what is typed; returns the last one's exit status.
    pub(crate) fn run(self, runtime: &Runtime, ui: &Ui) -> Result<u8, Fault> {
        // While a command runs, Ctrl-C and Ctrl-\ are for it: with a handler they do not end the prompt, and a
        // program that is started gets the default back.
        let entered = runtime.enter();
        let _interrupt = signal(SignalKind::interrupt()).map_err(|e| Fault::internal(&e))?;
        let _quit = signal(SignalKind::quit()).map_err(|e| Fault::internal(&e))?;
        drop(entered);
        if !self.command.is_empty() {
            return Ok(obey(ui, self.command).status());
        }
        if io::stdin().is_terminal() {
            return prompt::run(ui);
        }
        let mut status = 0;
        for line in io::stdin().lock().lines() {
            let line = line.map_err(|error| {
                Fault::new(Kind::Invalid, "E-FILE", "cannot read commands").because(&error)
            })?;
            match obey_line(ui, &line) {
                Step::Next(next) => status = next,
                Step::Exit => break,
            }
        }
        Ok(status)
    }
}

/// Obeys one line as it was typed.
fn obey_line(ui: &Ui, line: &str) -> Step {
    match words::split(line) {
        Ok(words) if words.is_empty() => Step::Next(0),
        Ok(words) => obey(ui, words),
        Err(error) => {
            ui.fault(&Fault::new(Kind::Invalid, "E-CROSH", error.to_string()));
            Step::Next(2)
        }
    }
}

fn obey(ui: &Ui, words: Vec<String>) -> Step {
    match Command::parse(words).and_then(|command| command.run(ui)) {
        Ok(step) => step,
        Err(refusal) => Step::Next(refusal.print(ui)),
    }
}
