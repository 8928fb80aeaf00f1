//! `cargo xtask up [-- CMD…]`: from a fresh checkout to a shell in the container. Every step does nothing when it was done
//! before, so an interrupted run goes on where it stopped.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::install::{self, Prefix};
use crate::packages::{self, Purpose};
use crate::{build, image};

/// Sets everything up and opens a shell in the container, or runs a command there.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run this there instead; its output and exit status are passed through
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Does it all and becomes `testudo`; returns only on failure.
///
/// # Errors
/// When a step fails.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    packages::ensure(&[Purpose::Image, Purpose::Product])?;
    image::build(&image::Arguments::default())?;
    let built = build::programs()?;
    let prefix = Prefix::of_user()?;
    install::install(&prefix, &built)?;
    install::say_path(&prefix.names());
    let mut testudo = Command::new(prefix.names().join("testudo"));
    if !arguments.command.is_empty() {
        testudo.arg("run").arg("--").args(&arguments.command);
    }
    Err(testudo.exec()).context("cannot start testudo")
}
