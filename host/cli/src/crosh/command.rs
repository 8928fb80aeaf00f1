//! The commands of the prompt: a closed list.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process;

use wire::{Bytes, Fault, Kind};

use crate::end;
use crate::invocation::{Invocation, Usage};
use crate::suggest;
use crate::ui::{self, Table, Ui, span};

/// A command of the prompt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// This binary under the first word's name, with the others as arguments.
    Tool(Vec<String>),
    /// How long the machine has been up.
    Uptime,
    /// The machine's memory.
    Free,
    /// The commands.
    Help,
    /// Leave.
    Exit,
}

/// What the prompt does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It goes on; the command ended with this status.
    Next(u8),
    /// It ends.
    Exit,
}

impl Step {
    /// Returns the exit status that it stands for.
    pub(super) fn status(&self) -> u8 {
        match self {
            Self::Next(status) => *status,
            Self::Exit => 0,
        }
    }
}

/// Why a command is not run.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Its arguments are wrong, or its help was asked for.
    Usage(Usage),
    /// Something else.
    Fault(Fault),
}

impl Refusal {
    /// Prints it and returns the status that the command would have ended with.
    pub(super) fn print(&self, ui: &Ui) -> u8 {
        match self {
            Self::Usage(usage) => {
                ui::usage(usage);
                usage.status
            }
            Self::Fault(fault) => {
                ui.fault(fault);
                end::USAGE
            }
        }
    }
}

/// The commands and what they are for.
pub(super) const COMMANDS: [(&str, &str); 9] = [
    ("vmc", "create, start, stop and look into VMs (vmc --help)"),
    (
        "vsh",
        "a shell in a VM or container: vsh VM [CONTAINER] [-- COMMAND]",
    ),
    ("list", "the containers"),
    ("top", "what VMs and containers use, once"),
    ("version", "the versions of Testudo"),
    ("uptime", "how long this machine has been up"),
    ("free", "the memory of this machine"),
    ("help", "this list"),
    ("exit", "leave"),
];

impl Command {
    /// Returns the command that `words` spell, if it is one that may be run here.
    pub(super) fn parse(words: Vec<String>) -> Result<Self, Refusal> {
        let name = words.first().map_or("", String::as_str);
        if words.len() > 1 && !matches!(name, "vmc" | "vsh") {
            return Err(refusal(
                format!("{name} takes no arguments"),
                "help lists the commands",
            ));
        }
        let testudo = |rest: &[&str]| {
            let words = ["testudo"].iter().chain(rest);
            Ok(Self::Tool(words.map(|&word| word.to_owned()).collect()))
        };
        match name {
            "vmc" | "vsh" => Self::tool(words),
            "list" => testudo(&["list"]),
            "top" => testudo(&["top", "--once"]),
            "version" => testudo(&["version"]),
            "uptime" => Ok(Self::Uptime),
            "free" => Ok(Self::Free),
            "help" => Ok(Self::Help),
            "exit" | "quit" => Ok(Self::Exit),
            other => {
                let near = suggest::nearest(other, COMMANDS.iter().map(|(name, _)| *name));
                let hint = match near {
                    Some(near) => format!("did you mean {near}?"),
                    None => "help lists the commands".to_owned(),
                };
                Err(refusal(format!("crosh has no command {other}"), &hint))
            }
        }
    }

    /// Returns the call of a tool, unless it would open a file of the host.
    fn tool(words: Vec<String>) -> Result<Self, Refusal> {
        let arguments = words.iter().map(OsString::from).collect();
        match Invocation::parse(arguments).map_err(Refusal::Usage)? {
            Some(Invocation::Vmc(vmc)) if vmc.opens_files() => Err(refusal(
                "crosh opens no files of this machine".to_owned(),
                "use vmc from a shell for that",
            )),
            _ => Ok(Self::Tool(words)),
        }
    }

    /// Runs it to its end.
    pub(super) fn run(self, ui: &Ui) -> Result<Step, Refusal> {
        let done = match self {
            Self::Exit => return Ok(Step::Exit),
            Self::Tool(words) => return start(&words).map(Step::Next).map_err(Refusal::Fault),
            Self::Help => {
                let mut table = Table::new(["COMMAND", "WHAT IT DOES"]);
                for (name, purpose) in COMMANDS {
                    table.row([name.to_owned(), purpose.to_owned()]);
                }
                ui.table(&table)
            }
            Self::Uptime => uptime().and_then(|line| ui.line(&line)),
            Self::Free => free().and_then(|line| ui.line(&line)),
        };
        done.map(|()| Step::Next(0)).map_err(Refusal::Fault)
    }
}

fn refusal(message: String, hint: &str) -> Refusal {
    Refusal::Fault(Fault::new(Kind::Denied, "E-CROSH", message).hint(hint))
}

/// Runs this binary under the name `words[0]`; returns its exit status.
fn start(words: &[String]) -> Result<u8, Fault> {
    let status = process::Command::new("/proc/self/exe")
        .arg0(&words[0])
        .args(&words[1..])
        // A shell asks for completions by this variable; at the prompt nobody does.
        .env_remove("COMPLETE")
        .status()
        .map_err(|error| {
            Fault::new(
                Kind::Exhausted,
                "E-CROSH",
                format!("cannot run {}", words[0]),
            )
            .because(&error)
        })?;
    let status = status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    Ok(u8::try_from(status).unwrap_or(1))
}

fn uptime() -> Result<String, Fault> {
    let text = proc("uptime")?;
    let seconds = text
        .split('.')
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0);
    let load = proc("loadavg")?;
    let load: Vec<_> = load.split_whitespace().take(3).collect();
    Ok(format!("up {}, load {}", span(seconds), load.join(" ")))
}

fn free() -> Result<String, Fault> {
    let text = proc("meminfo")?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        Bytes(kib.unwrap_or(0).saturating_mul(1024))
    };
    Ok(format!(
        "memory {} available of {}, swap {} free of {}",
        field("MemAvailable:"),
        field("MemTotal:"),
        field("SwapFree:"),
        field("SwapTotal:")
    ))
}

fn proc(name: &str) -> Result<String, Fault> {
    std::fs::read_to_string(format!("/proc/{name}")).map_err(|error| {
        Fault::new(
            Kind::Internal,
            "E-FILE",
            format!("cannot read /proc/{name}"),
        )
        .because(&error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, Refusal> {
        Command::parse(line.split_whitespace().map(str::to_owned).collect())
    }

    fn refused(line: &str) -> String {
        match parse(line) {
            Err(Refusal::Fault(fault)) => fault.to_string(),
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    #[test]
    fn nothing_of_the_host_is_offered() {
        for line in [
            "bash",
            "sh -c ls",
            "cat /etc/passwd",
            "testudo",
            "../bin/sh",
            "/bin/sh",
            "crosh",
        ] {
            assert!(
                matches!(parse(line), Err(Refusal::Fault(_))),
                "{line:?} was accepted"
            );
        }
    }

    #[test]
    fn tools_that_open_files_are_refused() {
        for line in [
            "vmc export termina /tmp/x",
            "vmc import termina /etc/shadow",
            "vmc logs termina /tmp/x",
            "vmc container termina c --from-rootfs /etc/shadow",
        ] {
            assert_eq!(refused(line), "crosh opens no files of this machine");
        }
        assert!(matches!(parse("vmc logs termina"), Ok(Command::Tool(_))));
        assert!(matches!(
            parse("vsh termina penguin -- ls"),
            Ok(Command::Tool(_))
        ));
    }

    #[test]
    fn slips_are_corrected() {
        match parse("halp") {
            Err(Refusal::Fault(fault)) => assert_eq!(fault.parts().hint, "did you mean help?"),
            other => panic!("{other:?}"),
        }
    }
}
