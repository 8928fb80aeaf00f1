//! `cargo xtask lab [NAME]`: our VMM on a real KVM, on any machine. QEMU emulates a processor with AMD's virtualisation;
//! Debian's kernel in it makes `/dev/kvm`; the tests of tests/lab run there, as root of a system that is only them.
//!
//! Where this machine has a `/dev/kvm` of its own that opens, the guests made by hand run on it too.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::TargetKind;

use crate::e2e::{executable, executables};
use crate::image::{self, cpio, debian_kernel};
use crate::packages::{self, Purpose};
use crate::progress::{line, spoken};
use crate::workspace::{TRIPLE, target};
use crate::{build, workspace};

/// The lab's budget in CI; everything in it is emulated, some of it twice.
const BUDGET: Duration = Duration::from_secs(15 * 60);

/// Room for the initial RAM file system, one machine of 4 GiB that touches little, and a few daemons.
const MEMORY_MIB: u32 = 5120;

/// What tests/lab/src/bin/init.rs prints last when all is well.
const PASSED: &str = "LAB: passed";

/// The test that needs no image, so that it can run wherever KVM opens.
const GUESTS: &str = "guests";

/// Runs our VMM on a real KVM, in a VM with emulated virtualisation
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Only tests whose name holds this
    only: Option<String>,
}

/// Builds what the lab consists of and runs it.
///
/// # Errors
/// When something cannot be built; a failing test is in the exit code.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    packages::ensure(&[Purpose::Image, Purpose::Product])?;
    let built = build()?;
    let here = on_this_machine(&built, arguments)?;
    let image = image::build(&image::Arguments::default())?;
    let archive = archive(&built, &image)?;
    let lab = in_the_lab(&archive, &image, arguments)?;
    Ok(if here && lab {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What cargo built for the lab.
struct Built {
    init: PathBuf,
    crosvm: PathBuf,
    tests: Vec<(String, PathBuf)>,
}

fn build() -> Result<Built> {
    line("lab: building crosvm and its tests");
    let format = "--message-format=json-render-diagnostics";
    let release = |verb: &str, arguments: &[&str]| {
        let mut cargo = build::cargo(verb);
        cargo.args(["--release", format]).args(arguments);
        cargo
    };
    let init = executable(&mut release(
        "build",
        &["--package", "lab", "--bin", "lab-init"],
    ))?;
    let crosvm = executable(&mut release("build", &["--package", "crosvm"]))?;
    let names = [
        "--package",
        "lab",
        "--no-run",
        "--test",
        GUESTS,
        "--test",
        "linux",
    ];
    let mut tests = executables(&mut release("test", &names), &TargetKind::Test)?;
    tests.sort();
    Ok(Built {
        init,
        crosvm,
        tests,
    })
}

/// Runs the guests made by hand where KVM opens. Returns whether they passed, or could not run here.
fn on_this_machine(built: &Built, arguments: &Arguments) -> Result<bool> {
    if File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        line("lab: this machine's /dev/kvm does not open: everything runs in the lab");
        return Ok(true);
    }
    let test = built.tests.iter().find(|(name, _)| name == GUESTS);
    let (_, test) = test.context("cargo built no test called guests")?;
    let programs = target()?.join(TRIPLE).join("release");
    line("lab: guests, on this machine's /dev/kvm");
    let status = Command::new(test)
        .arg("--test-threads=1")
        .args(&arguments.only)
        .env("TESTUDO_LAB_PROGRAMS", programs)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", test.display()))?;
    Ok(status.success())
}

/// Writes the lab's whole system as one archive and returns its path.
fn archive(built: &Built, image: &Path) -> Result<PathBuf> {
    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("init".to_owned(), read(&built.init)?),
        ("programs/crosvm".to_owned(), read(&built.crosvm)?),
        ("image/vmlinux".to_owned(), read(&image.join("vmlinux"))?),
    ];
    for (name, test) in &built.tests {
        files.push((format!("tests/{name}"), read(test)?));
    }
    for (index, module) in debian_kernel()?.kvm.iter().enumerate() {
        files.push((format!("modules/{index}"), read(module)?));
    }
    const FOLDER: u32 = 0o040_755;
    const PROGRAM: u32 = 0o100_755;
    let folders = [
        "dev", "image", "modules", "proc", "programs", "sys", "tests", "tmp",
    ];
    let mut entries: Vec<(&str, u32, &[u8])> = folders
        .iter()
        .map(|folder| (*folder, FOLDER, &b""[..]))
        .collect();
    entries.extend(
        files
            .iter()
            .map(|(name, content)| (name.as_str(), PROGRAM, content.as_slice())),
    );
    let path = target()?.join("xtask").join("lab.cpio");
    fs::create_dir_all(path.parent().context("the archive has no folder")?)?;
    fs::write(&path, cpio(&entries)).context("cannot write the lab's archive")?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Boots the lab, shows what it prints, and returns whether everything in it passed.
fn in_the_lab(archive: &Path, image: &Path, arguments: &Arguments) -> Result<bool> {
    line("lab: booting");
    let began = Instant::now();
    let mut qemu = qemu(archive, image, arguments)?;
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let console = BufReader::new(child.stdout.take().context("QEMU has no console")?);
    let (lines, printed) = channel();
    std::thread::spawn(move || {
        for text in console.split(b'\n').map_while(Result::ok) {
            let _nobody_waits = lines.send(String::from_utf8_lossy(&text).trim_end().to_owned());
        }
    });
    let log = workspace::log("lab")?;
    let mut file = File::create(&log).context("cannot write the lab's log")?;
    let mut passed = false;
    loop {
        match printed.recv_timeout(BUDGET.saturating_sub(began.elapsed())) {
            Ok(text) => {
                writeln!(file, "{text}").context("cannot write the lab's log")?;
                passed |= text.starts_with(PASSED);
                line(&text);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill().context("cannot end the lab")?;
                bail!(
                    "the lab is not done after {}; log {}",
                    spoken(BUDGET),
                    log.display()
                );
            }
        }
    }
    child.wait().context("cannot wait for the lab")?;
    let said = if passed { "passed" } else { "FAILED" };
    line(&format!(
        "lab: {said} after {}; log {}",
        spoken(began.elapsed()),
        log.display()
    ));
    Ok(passed)
}

/// Returns the lab's machine: two disks are Termina's, and what is written to them is forgotten.
fn qemu(archive: &Path, image: &Path, arguments: &Arguments) -> Result<Command> {
    let kernel = debian_kernel()?.kernel;
    let drive = |name: &str, file: &str| {
        let path = image.join(file);
        format!(
            "file={},if=none,id={name},format=raw,snapshot=on",
            path.display()
        )
    };
    let only = arguments
        .only
        .as_ref()
        .map(|only| format!(" lab.only={only}"));
    let append = format!(
        "console=ttyS0 quiet panic=-1 mitigations=off{}",
        only.unwrap_or_default()
    );
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-M",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "qemu64,+svm,+npt",
    ])
    .args(["-smp", "1", "-m", &MEMORY_MIB.to_string()])
    .args([
        "-nodefaults",
        "-no-user-config",
        "-nographic",
        "-no-reboot",
        "-serial",
        "stdio",
    ])
    .args(["-device", "nvme,id=disks,serial=lab"])
    .args([
        "-drive",
        &drive("root", "root.erofs"),
        "-device",
        "nvme-ns,drive=root,nsid=1",
    ])
    .args([
        "-drive",
        &drive("data", "data.btrfs"),
        "-device",
        "nvme-ns,drive=data,nsid=2",
    ])
    .arg("-kernel")
    .arg(kernel)
    .arg("-initrd")
    .arg(archive)
    .args(["-append", &append]);
    Ok(qemu)
}
