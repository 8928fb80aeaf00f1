//! `testudo completions`: what a shell needs to complete our command lines.

use clap::{Args, ValueEnum};
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};
use wire::{Fault, Kind};

use super::Call;
use crate::invocation::Program;

/// The variable by which a shell asks; clap_complete's default.
const VARIABLE: &str = "COMPLETE";

/// Print the completion script of a shell, for all four programs
///
/// Names of VMs and containers are completed while the daemon runs; nothing is started for it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  source <(testudo completions bash)\n  testudo completions fish > ~/.config/fish/completions/testudo.fish"
)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Elvish,
    Powershell,
}

impl Shell {
    fn completer(self) -> &'static dyn EnvCompleter {
        match self {
            Self::Bash => &Bash,
            Self::Zsh => &Zsh,
            Self::Fish => &Fish,
            Self::Elvish => &Elvish,
            Self::Powershell => &Powershell,
        }
    }
}

impl Completions {
    pub(super) fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let mut script = Vec::new();
        for program in Program::ALL {
            let name = program.name();
            self.shell
                .completer()
                .write_registration(VARIABLE, name, name, name, &mut script)
                .map_err(|error| {
                    Fault::new(Kind::Internal, "E-OUTPUT", "cannot make the script").because(&error)
                })?;
            script.push(b'\n');
        }
        call.ui.bytes(&script)
    }
}
