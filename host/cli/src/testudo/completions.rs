//! `testudo completions`: what a shell needs to complete our command lines.

use clap::{Args, ValueEnum};
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};
use wire::{Fault, Kind};

use super::Call;
use crate::invocation::Program;

/// The variable by which a shell asks; clap_complete's default.
const VARIABLE: &str = "COMPLETE";

/// zsh reads the file `_testudo` as the body of a function when one of the names in its first line is completed for the
/// first time; then it has to complete as well. Sourced, it only registers.
const AUTOLOADED: &str = r#"if [[ ${funcstack[1]} == _testudo ]]; then
    _clap_dynamic_completer_$service "$@"
fi
"#;

/// Print the completion script of a shell, for all four programs
///
/// Names of VMs and containers are completed while the daemon runs; nothing is started for it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  source <(testudo completions bash)\n  testudo completions zsh > ~/.zfunc/_testudo\n  testudo completions fish > ~/.config/fish/completions/testudo.fish"
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
        if matches!(self.shell, Shell::Zsh) {
            script.extend(
                format!("#compdef {}\n", Program::ALL.map(Program::name).join(" ")).bytes(),
            );
        }
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
        if matches!(self.shell, Shell::Zsh) {
            script.extend(AUTOLOADED.bytes());
        }
        call.ui.bytes(&script)
    }
}
