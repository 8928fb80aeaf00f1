//! `cargo xtask e2e [WALK…]`: the end-to-end suite on the real product, one file after the other, as an ordinary user.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Message, TargetKind};

use crate::packages::{self, Purpose};
use crate::progress::line;
use crate::tester::{Suite, Tester};
use crate::{build, image};

/// Follows the walks of docs/walks.md, on QEMU's emulator where there is no KVM.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these files of tests/e2e/tests
    #[arg(value_name = "WALK")]
    walks: Vec<String>,
    /// Only checks whose name holds this
    #[arg(last = true)]
    filter: Vec<String>,
}

impl Arguments {
    /// Returns the arguments that mean some files of the suite.
    pub(crate) fn walks(names: &[&str]) -> Self {
        Self {
            walks: names.iter().map(|name| (*name).to_owned()).collect(),
            filter: Vec::new(),
        }
    }
}

/// Builds what is needed and runs the suite.
///
/// # Errors
/// When something cannot be built; a failing test is in the exit code.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    packages::ensure(&[Purpose::Image, Purpose::Product, Purpose::Test])?;
    let image = image::build(&image::Arguments::default())?;
    let built = build::programs()?;
    let tests = build_tests(&arguments.walks)?;
    let tester = Tester::find()?;
    let image = tester.share(&image, "image")?;
    let programs = share_programs(&tester, &built, Some(&tests.cell))?;
    let suite = Suite {
        name: "e2e",
        folder: "tests",
        arguments: arguments.filter.iter().map(String::as_str).collect(),
        environment: &[
            ("TESTUDO_E2E_PROGRAMS", &programs),
            ("TESTUDO_E2E_IMAGE", &image),
        ],
    };
    suite.run(&tester, &tests.walks)
}

/// What cargo built for the suite.
struct Tests {
    walks: Vec<(String, PathBuf)>,
    cell: PathBuf,
}

fn build_tests(walks: &[String]) -> Result<Tests> {
    line("e2e: building the tests");
    let mut cargo = build::cargo("test");
    cargo.args([
        "--package",
        "e2e",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    if walks.is_empty() {
        cargo.args(["--test", "*"]);
    }
    for walk in walks {
        cargo.args(["--test", walk]);
    }
    let mut walks = executables(&mut cargo, &TargetKind::Test)?;
    walks.sort();
    let mut cargo = build::cargo("build");
    cargo.args([
        "--package",
        "fixture",
        "--bin",
        "cell",
        "--message-format=json-render-diagnostics",
    ]);
    let cell = executable(&mut cargo)?;
    Ok(Tests { walks, cell })
}

/// Runs cargo and returns the one program that it built.
///
/// # Errors
/// When it does not build.
pub(crate) fn executable(cargo: &mut Command) -> Result<PathBuf> {
    let built = executables(cargo, &TargetKind::Bin)?.pop();
    Ok(built.context("cargo built no program")?.1)
}

/// Runs cargo and returns the names and paths of the programs of `kind` that it built.
///
/// # Errors
/// When it does not build.
pub(crate) fn executables(
    cargo: &mut Command,
    kind: &TargetKind,
) -> Result<Vec<(String, PathBuf)>> {
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let mut found = Vec::new();
    for message in Message::parse_stream(output.stdout.as_slice()) {
        if let Message::CompilerArtifact(artifact) =
            message.context("cannot read cargo's messages")?
            && artifact.target.kind.contains(kind)
            && let Some(path) = artifact.executable
        {
            found.push((artifact.target.name, path.into()));
        }
    }
    Ok(found)
}

/// Puts our programs under all their names in one folder, as an installation does.
///
/// # Errors
/// When one cannot be copied.
pub(crate) fn share_programs(
    tester: &Tester,
    built: &Path,
    cell: Option<&Path>,
) -> Result<PathBuf> {
    let folder = built.with_file_name("e2e");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let mut copies: Vec<(PathBuf, &str)> = build::PROGRAMS
        .iter()
        .map(|name| (built.join(name), *name))
        .collect();
    copies.extend(cell.map(|cell| (cell.to_owned(), "cell")));
    copies.extend(
        build::NAMES
            .iter()
            .map(|name| (built.join("testudo"), *name)),
    );
    for (from, name) in copies {
        let new = folder.join(format!("{name}.new"));
        std::fs::copy(&from, &new).with_context(|| format!("cannot copy {}", from.display()))?;
        std::fs::rename(&new, folder.join(name)).context("cannot put a program in place")?;
    }
    tester.share(&folder, "programs")
}
