//! `cargo xtask windows`: the suite of tests/sommelier, both ends of the Wayland proxy on this machine under headless
//! compositors with real programs, as an ordinary user.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result};
use cargo_metadata::TargetKind;

use crate::packages::{self, Purpose};
use crate::progress::line;
use crate::tester::Tester;
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
    let mut failed = Vec::new();
    for (name, test) in &tests {
        line(&format!("windows: {name}"));
        let test = tester.share(test, &format!("windows/tests/{name}"))?;
        let status = tester
            .command(&test)?
            .args(&arguments.filter)
            // Two compositors on two cores prove nothing about either.
            .arg("--test-threads=1")
            .env("TESTUDO_WINDOWS_PROGRAMS", &programs)
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("cannot start {}", test.display()))?;
        if !status.success() {
            failed.push(name.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    line(&format!("windows: failed: {}", failed.join(", ")));
    Ok(ExitCode::FAILURE)
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
