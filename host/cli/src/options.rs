//! Command-line arguments that several commands share. Names and sizes become `wire`'s types here, once, and a
//! refused one comes with the nearest allowed spelling.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use wire::proto::ClipboardMode;
use wire::{Bytes, ContainerName, Mib, SnapshotName, VmName};

use crate::suggest;

/// When to colour what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless NO_COLOR or TERM=dumb say otherwise
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How to print; understood before and after the command's name.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Print JSON on stdout, one object a line (docs/json.md)
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no messages, and of lists only the names
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Colour the output
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        value_name = "WHEN"
    )]
    pub(crate) color: When,
    #[command(flatten)]
    pub(crate) input: Input,
}

/// Whether to ask questions.
#[derive(Debug, Clone, Args)]
pub(crate) struct Input {
    /// Never ask; fail where an answer would be needed
    #[arg(long, global = true)]
    pub(crate) no_input: bool,
}

/// How a process is started in the guest.
#[derive(Debug, Clone, Args)]
pub(crate) struct SessionOptions {
    /// User to be (default: the container's own user; root in a VM)
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Folder to start in (default: the user's home)
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// Environment variable to set, or to pass on when no value is given
    #[arg(short, long = "env", value_name = "KEY[=VALUE]", value_parser = variable)]
    pub(crate) environment: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) terminal: TerminalOptions,
}

/// Whether the process gets a terminal.
#[derive(Debug, Clone, Args)]
pub(crate) struct TerminalOptions {
    /// Give the process a terminal even when stdin or stdout is none
    #[arg(short = 't', long = "tty", overrides_with = "no_tty")]
    pub(crate) tty: bool,
    /// Give the process pipes even when stdin and stdout are a terminal
    #[arg(short = 'T', long = "no-tty", overrides_with = "tty")]
    pub(crate) no_tty: bool,
}

impl SessionOptions {
    /// Returns the options of a plain shell.
    pub(crate) fn plain() -> Self {
        Self {
            user: None,
            cwd: None,
            environment: Vec::new(),
            terminal: TerminalOptions {
                tty: false,
                no_tty: false,
            },
        }
    }
}

/// Settings of a VM that `set` changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// Processors.
    Cpus(u32),
    /// Memory.
    Memory(Mib),
    /// Which way copied data may go.
    Clipboard {
        /// Into the VM.
        to_guest: bool,
        /// Out of it.
        to_host: bool,
        /// When, where it may at all.
        mode: ClipboardMode,
    },
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let (key, value) = given
            .split_once('=')
            .ok_or("write KEY=VALUE, such as cpus=4 or memory=8G")?;
        let clipboard = |to_guest, to_host, mode| {
            Ok(Self::Clipboard {
                to_guest,
                to_host,
                mode,
            })
        };
        let focus = ClipboardMode::OnFocus;
        match key {
            "cpus" => match value.parse() {
                Ok(0) | Err(_) => Err(format!("{value:?} is not a number of processors")),
                Ok(cpus) => Ok(Self::Cpus(cpus)),
            },
            "memory" => value
                .parse()
                .map(Self::Memory)
                .map_err(|e: wire::SizeError| e.to_string()),
            "clipboard" => match value {
                "on" => clipboard(true, true, focus),
                "off" => clipboard(false, false, focus),
                "to-guest" => clipboard(true, false, focus),
                "to-host" => clipboard(false, true, focus),
                "ask" => clipboard(true, true, ClipboardMode::Ask),
                "explicit" => clipboard(true, true, ClipboardMode::Explicit),
                _ => Err(format!(
                    "the clipboard cannot be {value:?}: on, off, to-guest, to-host, ask or explicit"
                )),
            },
            other => Err(
                match suggest::nearest(other, ["cpus", "memory", "clipboard"]) {
                    Some(near) => format!("there is no setting {other:?}; did you mean {near}?"),
                    None => format!(
                        "there is no setting {other:?}; there are cpus, memory and clipboard"
                    ),
                },
            ),
        }
    }
}

/// Parses a VM's name.
pub(crate) fn vm(given: &str) -> Result<VmName, String> {
    name(given)
}

/// Parses a container's name.
pub(crate) fn container(given: &str) -> Result<ContainerName, String> {
    name(given)
}

/// Parses a snapshot's name.
pub(crate) fn snapshot(given: &str) -> Result<SnapshotName, String> {
    name(given)
}

/// Parses a size.
pub(crate) fn size(given: &str) -> Result<Bytes, String> {
    given
        .parse()
        .map_err(|error: wire::SizeError| error.to_string())
}

/// Parses seconds, with a fraction if need be.
pub(crate) fn seconds(given: &str) -> Result<std::time::Duration, String> {
    let number = given.strip_suffix('s').unwrap_or(given);
    number
        .parse()
        .ok()
        .and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{given:?} is not a time: write seconds, such as 30 or 2.5s"))
}

fn name<T: FromStr<Err = wire::NameError>>(given: &str) -> Result<T, String> {
    given.parse().map_err(|error: wire::NameError| {
        let near = suggest::spelling(given);
        match near.parse::<T>() {
            Ok(_) => format!("{error}; did you mean {near}?"),
            Err(_) => error.to_string(),
        }
    })
}

fn variable(given: &str) -> Result<(String, String), String> {
    let (key, value) = match given.split_once('=') {
        Some((key, value)) => (key, value.to_owned()),
        None => (
            given,
            std::env::var(given)
                .map_err(|_| format!("{given} is not set here: write {given}=VALUE"))?,
        ),
    };
    if key.is_empty() || key.contains('\0') || value.contains('\0') {
        return Err("a variable needs a name".to_owned());
    }
    Ok((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_name_comes_with_the_nearest_allowed_one() {
        let error = container("My_Box").unwrap_err();
        assert!(error.ends_with("did you mean my-box?"), "{error}");
        assert!(!vm("...").unwrap_err().contains("did you mean"));
    }

    #[test]
    fn settings_are_read_by_key() {
        assert_eq!("cpus=4".parse(), Ok(Setting::Cpus(4)));
        assert_eq!("memory=8G".parse(), Ok(Setting::Memory(Mib(8192))));
        let error = "memroy=8G".parse::<Setting>().unwrap_err();
        assert!(error.contains("did you mean memory?"), "{error}");
        assert!("cpus=0".parse::<Setting>().is_err());
        let to_host = Setting::Clipboard {
            to_guest: false,
            to_host: true,
            mode: ClipboardMode::OnFocus,
        };
        assert_eq!("clipboard=to-host".parse(), Ok(to_host));
        let ask = Setting::Clipboard {
            to_guest: true,
            to_host: true,
            mode: ClipboardMode::Ask,
        };
        assert_eq!("clipboard=ask".parse(), Ok(ask));
        assert!("clipboard=maybe".parse::<Setting>().is_err());
    }

    #[test]
    fn times_are_seconds() {
        assert_eq!(seconds("2.5s"), Ok(std::time::Duration::from_millis(2500)));
        for bad in ["", "-1", "soon", "nan", "1e300"] {
            assert!(seconds(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn variables_are_set_or_passed_on() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(variable("=x").is_err());
        assert!(variable("SURELY_NOT_SET_ANYWHERE").is_err());
    }
}
