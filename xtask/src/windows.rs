//! `cargo xtask windows`: the suite of tests/sommelier, both ends of the Wayland proxy on this machine under headless
//! compositors with real programs, as an ordinary user.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use cargo_metadata::TargetKind;

use crate::packages::{self, Purpose};
use crate::progress::line;
use crate::tester::{Suite, Tester};
use crate::{build, e2e, image};

/// Show windows of real programs on headless compositors, without a VM
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Only this file of tests/sommelier/tests
    file: Option<String>,
    /// Only tests whose name holds this
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Builds what is needed and runs the suite.
///
/// # Errors
/// When something cannot be built; a failing test is in the exit code.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    packages::ensure(&[Purpose::Windows])?;
    let tester = Tester::find()?;
    let programs = programs(&tester)?;
    line("windows: building the tests");
    let mut cargo = build::cargo("test");
    cargo.args([
        "--package",
        "windows",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    cargo.args(["--test", arguments.file.as_deref().unwrap_or("*")]);
    let mut tests = e2e::executables(&mut cargo, &TargetKind::Test)?;
    tests.sort();
    let mut words: Vec<&str> = arguments.filter.iter().map(String::as_str).collect();
    // Two compositors on two cores prove nothing about either.
    words.push("--test-threads=1");
    let suite = Suite {
        name: "windows",
        folder: "windows/tests",
        arguments: words,
        environment: &[("TESTUDO_WINDOWS_PROGRAMS", &programs)],
    };
    suite.run(&tester, &tests)
}

/// Builds both ends as the product has them and returns the folder where `tester` finds them.
///
/// # Errors
/// When they do not build or cannot be copied.
pub(crate) fn programs(tester: &Tester) -> Result<PathBuf> {
    let ends = [
        (build::programs()?, "wayland-hostd"),
        (image::programs()?, "sommelier"),
    ];
    let mut folder = PathBuf::new();
    for (built, name) in ends {
        folder = tester.share(&built.join(name), &format!("windows/{name}"))?;
        folder.pop();
    }
    Ok(folder)
}
