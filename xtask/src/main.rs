//! Every chore of the repository, on the developer's or CI's machine: `cargo xtask CHORE`.
//!
//! One file per chore; a chore is its clap arguments and one `run`. Adding one is a module line, a
//! variant of [`Chore`] and its arm in [`Chore::run`].

mod bench;
mod build;
mod check;
mod command;
mod e2e;
mod fuzz;
mod image;
mod install;
mod lab;
mod packages;
mod progress;
mod release;
mod test;
mod tester;
mod up;
mod windows;
mod workspace;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The chores of Testudo's repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    Up(up::Arguments),
    /// Run everything that CI checks
    Test,
    /// Check format, lints, documentation, licences and the repository's own rules
    Check,
    E2e(e2e::Arguments),
    Bench(bench::Arguments),
    Image(image::Arguments),
    Lab(lab::Arguments),
    Windows(windows::Arguments),
    Fuzz(fuzz::Arguments),
    /// Pack what an installation consists of into one archive
    Release,
    Install(install::Arguments),
}

impl Chore {
    fn run(self) -> Result<ExitCode> {
        match self {
            Self::Up(arguments) => up::run(&arguments),
            Self::Test => test::run(),
            Self::Check => check::run(),
            Self::E2e(arguments) => e2e::run(&arguments),
            Self::Bench(arguments) => bench::run(&arguments),
            Self::Image(arguments) => image::run(&arguments),
            Self::Lab(arguments) => lab::run(&arguments),
            Self::Windows(arguments) => windows::run(&arguments),
            Self::Fuzz(arguments) => fuzz::run(&arguments),
            Self::Release => release::run(),
            Self::Install(arguments) => install::run(&arguments),
        }
    }
}

fn main() -> ExitCode {
    match Arguments::parse().chore.run() {
        Ok(code) => code,
        Err(error) => {
            let mut stderr = std::io::stderr().lock();
            // Nobody is left to tell when stderr is gone.
            let _ = writeln!(stderr, "error: {error}");
            for cause in error.chain().skip(1) {
                let _ = writeln!(stderr, "cause: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}
