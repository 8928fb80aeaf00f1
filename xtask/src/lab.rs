//! `cargo xtask lab [PROGRAM…]`: our VMM, and the whole product on it, on a real KVM, on any machine. QEMU emulates a
//! processor with AMD's virtualisation; Debian's kernel in it makes `/dev/kvm`; the tests of tests/lab run there, then
//! walks of tests/e2e as an ordinary user, which find an engine as they would on any other machine.
//!
//! Where this machine has a `/dev/kvm` of its own that opens, the guests made by hand run on it too.

mod disk;

use std::collections::BTreeMap;
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
use crate::workspace::target;
use crate::{build, workspace};

/// The lab's budget in CI; everything in it is emulated, some of it twice.
const BUDGET: Duration = Duration::from_secs(15 * 60);

/// For programs that somebody asked for by name: each walk of tests/e2e takes minutes here, `kill` a quarter of an hour.
const PATIENCE: Duration = Duration::from_secs(3 * 60 * 60);

/// Room for one machine of 4 GiB that touches little, a VM with half of it, and what was read from the disk.
const MEMORY_MIB: u32 = 5120;

/// What tests/lab/src/bin/init.rs prints last when all is well.
const PASSED: &str = "LAB: passed";

/// Programs that only tests start, each after its package.
const BESIDE: [(&str, &str); 3] = [
    ("lab", "lab-lacking"),
    ("lab", "lab-peer"),
    ("fixture", "cell"),
];

/// The test that needs no image, so that it can run wherever KVM opens.
const GUESTS: &str = "guests";

/// Tests of tests/lab, in this order.
const TESTS: [&str; 4] = [GUESTS, "linux", "snapshot", "figures"];

/// The program of tests/lab that only measures; it runs by name, and for `cargo xtask bench vmm`.
const BOOT: &str = "boot";

/// The test of tests/lab that is the whole product's, like the walks.
const PRODUCT: &str = "product";

/// What `cargo xtask bench vmm` has run.
const MEASURED: [&str; 3] = ["figures", BOOT, PRODUCT];

/// What stands in front of figures, which are one JSON object.
const FIGURES: &str = "FIGURES ";

/// Walks of tests/e2e that the budget has room for: a start takes ten times what it takes on real hardware. The others run
/// by name.
const WALKS: [&str; 3] = ["memory_size", "save", "stop"];

/// Runs our VMM, and the product on it, on a real KVM, in a VM with emulated virtualisation
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Only these: tests of tests/lab, or any walks of tests/e2e
    #[arg(value_name = "PROGRAM")]
    programs: Vec<String>,
    /// Only tests whose name holds this
    #[arg(last = true)]
    filter: Option<String>,
}

impl Arguments {
    fn wants(&self, program: &str) -> bool {
        self.programs.is_empty() || self.programs.iter().any(|only| only == program)
    }

    /// Returns the walks that are wanted: the usual ones, or those that are named.
    fn walks(&self) -> Vec<&str> {
        if self.programs.is_empty() {
            return WALKS.to_vec();
        }
        let names = self.programs.iter().map(String::as_str);
        names
            .filter(|name| !TESTS.contains(name) && ![BOOT, PRODUCT].contains(name))
            .collect()
    }

    /// Returns how long the lab may take.
    fn limit(&self) -> Duration {
        if self.programs.is_empty() {
            BUDGET
        } else {
            PATIENCE
        }
    }
}

/// Builds what the lab consists of and runs it.
///
/// # Errors
/// When something cannot be built; a failing test is in the exit code.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    Ok(if carry_out(arguments)?.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns what our monitor costs, by name, and how long a boot takes beside another's.
///
/// # Errors
/// When something cannot be built, or a budget is not kept.
pub(crate) fn measure() -> Result<BTreeMap<String, f64>> {
    let arguments = Arguments {
        programs: MEASURED.map(str::to_owned).to_vec(),
        filter: None,
    };
    let outcome = carry_out(&arguments)?;
    if !outcome.passed {
        bail!("the lab's measurements failed");
    }
    Ok(outcome.figures)
}

/// What came of a run.
#[derive(Default)]
struct Outcome {
    passed: bool,
    figures: BTreeMap<String, f64>,
}

fn carry_out(arguments: &Arguments) -> Result<Outcome> {
    packages::ensure(&[Purpose::Image, Purpose::Product, Purpose::Test])?;
    let built = build(arguments)?;
    let stage = disk::stage(&built)?;
    let here = on_this_machine(&built, &stage.join("programs"), arguments)?;
    let image = image::build(&image::Arguments::default())?;
    let disk = disk::make(&stage, &image)?;
    let mut outcome = in_the_lab(&archive(&built)?, &disk, arguments)?;
    outcome.passed &= here;
    Ok(outcome)
}

/// As whom a test runs in the lab.
#[derive(Clone, Copy)]
enum Who {
    Root,
    User,
}

/// One test program.
struct Test {
    name: String,
    file: PathBuf,
    who: Who,
}

/// What cargo built for the lab.
struct Built {
    init: PathBuf,
    /// The folder of our programs.
    programs: PathBuf,
    /// [`BESIDE`].
    beside: Vec<(String, PathBuf)>,
    /// In the order in which they run.
    tests: Vec<Test>,
}

fn build(arguments: &Arguments) -> Result<Built> {
    let programs = build::programs()?;
    line("lab: building the tests");
    let format = "--message-format=json-render-diagnostics";
    let cargo = |verb: &str, arguments: &[&str]| {
        let mut cargo = build::cargo(verb);
        cargo.arg(format).args(arguments);
        cargo
    };
    let program = |package: &str, name: &str| {
        let words = ["--package", package, "--bin", name];
        executable(&mut cargo("build", &words))
    };
    let init = program("lab", "lab-init")?;
    let beside = BESIDE.map(|(package, name)| Ok((name.to_owned(), program(package, name)?)));
    let mut tests = Vec::new();
    let walks = arguments.walks();
    let by_name = arguments.programs.iter().any(|name| name == BOOT);
    let measures: &[&str] = if by_name { &[BOOT] } else { &[] };
    let sets = [
        ("lab", &TESTS[..], Who::Root),
        ("lab", measures, Who::Root),
        ("lab", &[PRODUCT], Who::User),
        ("e2e", &walks, Who::User),
    ];
    for (package, names, who) in sets {
        let wanted = names.iter().copied().filter(|name| arguments.wants(name));
        let wanted: Vec<&str> = wanted.collect();
        if wanted.is_empty() {
            continue;
        }
        let mut words = vec!["--package", package, "--no-run"];
        words.extend(wanted.iter().flat_map(|name| ["--test", name]));
        let mut built = executables(&mut cargo("test", &words), &TargetKind::Test)?;
        built.sort_by_key(|(name, _)| wanted.iter().position(|wanted| wanted == name));
        let built = built.into_iter();
        tests.extend(built.map(|(name, file)| Test { name, file, who }));
    }
    Ok(Built {
        init,
        programs,
        beside: beside.into_iter().collect::<Result<_>>()?,
        tests,
    })
}

/// Runs the guests made by hand where KVM opens. Returns whether they passed, or could not run here.
fn on_this_machine(built: &Built, programs: &Path, arguments: &Arguments) -> Result<bool> {
    let Some(test) = built.tests.iter().find(|test| test.name == GUESTS) else {
        return Ok(true);
    };
    if File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        line("lab: this machine's /dev/kvm does not open: everything runs in the lab");
        return Ok(true);
    }
    line("lab: guests, on this machine's /dev/kvm");
    let status = Command::new(&test.file)
        .arg("--test-threads=1")
        .args(&arguments.filter)
        .env("TESTUDO_LAB_PROGRAMS", programs)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", test.file.display()))?;
    Ok(status.success())
}

/// Writes what the lab starts from, until it has its disk, as one archive and returns its path.
fn archive(built: &Built) -> Result<PathBuf> {
    const FOLDER: u32 = 0o040_755;
    const PROGRAM: u32 = 0o100_755;
    let mut files = vec![("init".to_owned(), read(&built.init)?)];
    for (index, module) in debian_kernel()?.modules.iter().enumerate() {
        files.push((format!("modules/{index}"), read(module)?));
    }
    let folders = ["dev", "disk", "modules"];
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
    fs::write(&path, cpio(&entries)).context("cannot write the lab's archive")?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Boots the lab, shows what it prints, and returns what came of it.
fn in_the_lab(archive: &Path, disk: &Path, arguments: &Arguments) -> Result<Outcome> {
    line("lab: booting");
    let began = Instant::now();
    let mut qemu = qemu(archive, disk, arguments)?;
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
    let mut outcome = Outcome::default();
    let limit = arguments.limit();
    loop {
        match printed.recv_timeout(limit.saturating_sub(began.elapsed())) {
            Ok(text) => {
                writeln!(file, "{text}").context("cannot write the lab's log")?;
                outcome.passed |= text.starts_with(PASSED);
                let figures = text.strip_prefix(FIGURES).map(serde_json::from_str);
                if let Some(Ok::<BTreeMap<_, _>, _>(figures)) = figures {
                    outcome.figures.extend(figures);
                }
                line(&text);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill().context("cannot end the lab")?;
                bail!(
                    "the lab is not done after {}; log {}",
                    spoken(limit),
                    log.display()
                );
            }
        }
    }
    child.wait().context("cannot wait for the lab")?;
    let said = if outcome.passed { "passed" } else { "FAILED" };
    line(&format!(
        "lab: {said} after {}; log {}",
        spoken(began.elapsed()),
        log.display()
    ));
    Ok(outcome)
}

/// Returns the lab's machine; what is written to its disk is forgotten.
fn qemu(archive: &Path, disk: &Path, arguments: &Arguments) -> Result<Command> {
    let kernel = debian_kernel()?.kernel;
    let drive = format!(
        "file={},if=none,id=disk,format=raw,snapshot=on,cache=unsafe",
        disk.display()
    );
    let only = arguments.filter.as_ref();
    let only = only.map_or(String::new(), |only| format!(" lab.only={only}"));
    let append = format!("console=ttyS0 quiet panic=-1 mitigations=off{only}");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-M", "q35", "-accel", "tcg,thread=multi"])
        .args(["-cpu", "max"])
        .args(["-smp", "1", "-m", &MEMORY_MIB.to_string()])
        .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"])
        .args(["-serial", "stdio"])
        .args(["-drive", &drive])
        .args(["-device", "nvme,drive=disk,serial=lab"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(archive)
        .args(["-append", &append]);
    Ok(qemu)
}
