//! Which of the four programs was called, and with what.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{CommandFactory as _, FromArgMatches as _};
use wire::Fault;

use crate::crosh::Crosh;
use crate::end::{self, End};
use crate::testudo::Testudo;
use crate::ui::Ui;
use crate::vmc::Vmc;
use crate::vsh::Vsh;
use crate::{completion, crosh, testudo, vmc, vsh};

/// Whose exit status the call ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contract {
    /// Our own: 0, or a number for the kind of failure.
    Verb,
    /// A command's, with 125 to 127 for failures of ours.
    Session,
}

/// A parsed call.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// The container verbs.
    Testudo(Testudo),
    /// The VM verbs.
    Vmc(Vmc),
    /// A shell by VM and container.
    Vsh(Vsh),
    /// The restricted prompt.
    Crosh(Crosh),
}

/// Why nothing is run: help or version was asked for, or the command line is wrong.
#[derive(Debug)]
pub(crate) struct Usage {
    /// What clap has to say.
    pub(crate) error: clap::Error,
    /// The exit status.
    pub(crate) status: u8,
}

/// The names this binary answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Testudo,
    Vmc,
    Vsh,
    Crosh,
}

impl Program {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Testudo, Self::Vmc, Self::Vsh, Self::Crosh];

    /// Returns the program that is meant by the path it was called by.
    fn called(path: Option<&OsString>) -> Self {
        let name = path
            .and_then(|path| Path::new(path).file_name())
            .and_then(OsStr::to_str);
        // A login shell is called with a hyphen in front.
        let name = name.unwrap_or_default().trim_start_matches('-');
        Self::ALL
            .into_iter()
            .find(|program| program.name() == name)
            .unwrap_or(Self::Testudo)
    }

    /// Returns the name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Testudo => "testudo",
            Self::Vmc => "vmc",
            Self::Vsh => "vsh",
            Self::Crosh => "crosh",
        }
    }

    /// Returns the command-line grammar.
    pub(crate) fn grammar(self) -> clap::Command {
        match self {
            Self::Testudo => Testudo::command(),
            Self::Vmc => Vmc::command(),
            Self::Vsh => Vsh::command(),
            Self::Crosh => Crosh::command(),
        }
    }

    fn parse(self, arguments: Vec<OsString>) -> Result<Invocation, clap::Error> {
        let mut matches = self.grammar().try_get_matches_from(arguments)?;
        Ok(match self {
            Self::Testudo => Invocation::Testudo(Testudo::from_arg_matches_mut(&mut matches)?),
            Self::Vmc => Invocation::Vmc(Vmc::from_arg_matches_mut(&mut matches)?),
            Self::Vsh => Invocation::Vsh(Vsh::from_arg_matches_mut(&mut matches)?),
            Self::Crosh => Invocation::Crosh(Crosh::from_arg_matches_mut(&mut matches)?),
        })
    }
}

impl Invocation {
    /// Parses the arguments, the first of which is the path we were called by; `None` when a shell asked for
    /// completions and has been answered.
    pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Option<Self>, Usage> {
        let program = Program::called(arguments.first());
        let session = joins_a_process(program, &arguments);
        let usage = |error: clap::Error| {
            let status = match error.exit_code() {
                0 => 0,
                _ if session => end::SESSION_FAILED,
                _ => end::USAGE,
            };
            Usage { error, status }
        };
        if completion::answered(program, &arguments).map_err(usage)? {
            return Ok(None);
        }
        program.parse(arguments).map(Some).map_err(usage)
    }

    /// Returns how to talk to the user.
    pub(crate) fn ui(&self) -> Ui {
        let output = match self {
            Self::Testudo(call) => &call.output,
            Self::Vmc(call) => &call.output,
            Self::Vsh(call) => &call.output,
            Self::Crosh(call) => &call.output,
        };
        Ui::new(output, self.contract() == Contract::Session)
    }

    /// Returns whose exit status the call ends with.
    pub(crate) fn contract(&self) -> Contract {
        let session = match self {
            Self::Testudo(call) => call.joins_a_process(),
            Self::Vmc(call) => call.joins_a_process(),
            Self::Vsh(_) => true,
            Self::Crosh(_) => false,
        };
        if session {
            Contract::Session
        } else {
            Contract::Verb
        }
    }

    /// Carries the call out.
    pub(crate) async fn run(self, ui: &Ui) -> Result<End, Fault> {
        match self {
            Self::Testudo(call) => testudo::run(call, ui).await,
            Self::Vmc(call) => vmc::run(call, ui).await,
            Self::Vsh(call) => vsh::run(call, ui).await,
            Self::Crosh(call) => Ok(crosh::run(call)),
        }
    }
}

/// Returns whether a call that could not be parsed would have ended with a command's status.
fn joins_a_process(program: Program, arguments: &[OsString]) -> bool {
    match program {
        Program::Vsh => true,
        Program::Testudo => {
            let mut words = arguments.iter().skip(1).filter_map(|word| word.to_str());
            words
                .find(|word| !word.starts_with('-'))
                .is_some_and(testudo::is_session_verb)
        }
        Program::Vmc | Program::Crosh => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(path: &str) -> Program {
        Program::called(Some(&path.into()))
    }

    #[test]
    fn the_name_decides_which_program_it_is() {
        assert_eq!(called("/usr/bin/vmc"), Program::Vmc);
        assert_eq!(called("-crosh"), Program::Crosh);
        assert_eq!(called("testudo-1.2"), Program::Testudo);
    }

    #[test]
    fn the_grammars_hold_together() {
        for program in Program::ALL {
            program.grammar().debug_assert();
        }
    }

    #[test]
    fn a_wrong_call_ends_as_its_contract_says() {
        let status = |words: &[&str]| {
            let words = words.iter().map(OsString::from).collect();
            Invocation::parse(words).unwrap_err().status
        };
        assert_eq!(status(&["vsh"]), 125);
        assert_eq!(status(&["testudo", "-q", "exec"]), 125);
        assert_eq!(status(&["testudo", "list", "--nonsense"]), 2);
        assert_eq!(status(&["testudo", "--help"]), 0);
    }
}
