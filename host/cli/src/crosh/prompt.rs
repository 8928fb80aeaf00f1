//! The prompt on a terminal: line editing, history and completion.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};
use wire::{Fault, Kind};

use super::command::{COMMANDS, Step};
use super::obey_line;
use crate::completion;
use crate::defaults;
use crate::invocation::Program;
use crate::ui::Ui;

/// Lines kept; ChromeOS keeps as many.
const HISTORY_MAX: usize = 4096;

/// Prompts until the user leaves; returns the last command's exit status.
pub(super) fn run(ui: &Ui) -> Result<u8, Fault> {
    let failed = |error: ReadlineError| {
        Fault::new(Kind::Internal, "E-CROSH", "cannot use this terminal").because(&error)
    };
    let config = Config::builder()
        .max_history_size(HISTORY_MAX)
        .map_err(failed)?
        .history_ignore_space(true)
        .build();
    let mut editor = Editor::<Words, FileHistory>::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Words));
    let history = history();
    if let Some(path) = &history {
        // A history that cannot be read is no reason not to prompt.
        editor.load_history(path).ok();
    }
    ui.note("Testudo's restricted prompt; help lists its commands");
    let mut status = 0;
    loop {
        match editor.readline("crosh> ") {
            Ok(line) => {
                editor.add_history_entry(line.as_str()).map_err(failed)?;
                match obey_line(ui, &line) {
                    Step::Next(next) => status = next,
                    Step::Exit => break,
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    if let Some(path) = &history {
        // Nor is one that cannot be written a reason to fail.
        editor.append_history(path).ok();
    }
    Ok(status)
}

/// Returns the history's file, made readable for this user only.
fn history() -> Option<PathBuf> {
    let state = defaults::places().ok()?.state().to_owned();
    std::fs::create_dir_all(&state).ok()?;
    let path = state.join("crosh_history");
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .ok()?;
    Some(path)
}

/// Completes words from the grammars and the names of what runs.
#[derive(Debug)]
struct Words;

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = &line[..position];
        let begin = before
            .rfind(char::is_whitespace)
            .map_or(0, |blank| blank + 1);
        let earlier: Vec<_> = before[..begin].split_whitespace().collect();
        let mut found = candidates(&earlier);
        found.retain(|candidate| candidate.starts_with(&before[begin..]));
        Ok((begin, found))
    }
}

fn candidates(earlier: &[&str]) -> Vec<String> {
    match earlier {
        [] => COMMANDS
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect(),
        ["vmc"] => {
            let grammar = Program::Vmc.grammar();
            grammar
                .get_subcommands()
                .map(|verb| verb.get_name().to_owned())
                .collect()
        }
        ["vsh"] | ["vmc", _] => completion::known_vms(),
        ["vsh", _] | ["vmc", "container", _] => completion::known_containers(),
        _ => Vec::new(),
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}
