//! PID 1 of the lab, the VM in which a real KVM runs: loads KVM, changes to the disk that `cargo xtask lab` made, runs
//! each test program, says how it went on the console, and powers off.
//!
//! The initial RAM file system has `/modules` in their order; the disk has `/tests` with their list, `/programs` and
//! `/image`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::system::RebootCommand;

/// What the host looks for on the console.
const PASSED: &str = "LAB: passed";
const FAILED: &str = "LAB: failed";

/// The lab's disk, the only one there is.
const DISK: &str = "/dev/nvme0n1";

/// The user of the walks, as the disk's /etc/passwd has it.
const USER: u32 = 1000;

fn main() -> ExitCode {
    let failed = work();
    let line = match &failed {
        Ok(none) if none.is_empty() => PASSED.to_owned(),
        Ok(names) => format!("{FAILED}: {}", names.join(", ")),
        Err(error) => format!("{FAILED}: {error:#}"),
    };
    print(&line);
    rustix::fs::sync();
    let _nothing_to_go_back_to = rustix::system::reboot(RebootCommand::PowerOff);
    ExitCode::FAILURE
}

/// Returns the names of the test programs that failed.
fn work() -> Result<Vec<String>> {
    prepare()?;
    let list = fs::read_to_string("/tests/list").context("cannot read the list of tests")?;
    let mut failed = Vec::new();
    for line in list.lines() {
        let Some((who, name)) = line.split_once(' ') else {
            bail!("{line:?} names no test");
        };
        print(&format!("LAB: {name}"));
        let began = Instant::now();
        let status = test(who, name)
            .status()
            .with_context(|| format!("cannot start {name}"))?;
        print(&format!(
            "LAB: {name}: {status} after {} s",
            began.elapsed().as_secs()
        ));
        if !status.success() {
            failed.push(name.to_owned());
        }
    }
    Ok(failed)
}

/// Returns the test `name`, to be run as root or as the ordinary user.
fn test(who: &str, name: &str) -> Command {
    let mut command = Command::new(Path::new("/tests").join(name));
    command
        .args(["--test-threads=1", "--nocapture"])
        .args(filter())
        .env_clear()
        .env("RUST_BACKTRACE", "0")
        .env("PATH", "/programs:/usr/bin:/bin:/usr/sbin:/sbin")
        .current_dir("/tmp");
    for variable in ["TESTUDO_LAB_PROGRAMS", "TESTUDO_E2E_PROGRAMS"] {
        command.env(variable, "/programs");
    }
    for variable in ["TESTUDO_LAB_IMAGE", "TESTUDO_E2E_IMAGE"] {
        command.env(variable, "/image");
    }
    if who == "user" {
        command.uid(USER).gid(USER).env("HOME", "/home");
    }
    command
}

/// Makes the lab a machine: KVM, the disk as root, what a user expects of a running system.
fn prepare() -> Result<()> {
    for module in sorted("/modules")? {
        let file = fs::File::open(&module)?;
        rustix::system::finit_module(&file, c"", 0)
            .with_context(|| format!("cannot load {}", module.display()))?;
    }
    mounted("devtmpfs", "/dev", "devtmpfs")?;
    mounted(DISK, "/disk", "ext4")?;
    enter_disk().context("cannot change to the disk")?;
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mounted(kind, place, kind)?;
    }
    fs::create_dir_all("/dev/pts").context("cannot make /dev/pts")?;
    mounted("devpts", "/dev/pts", "devpts")?;
    // As udev does on a desktop.
    for node in [
        "/dev/kvm",
        "/dev/ptmx",
        "/dev/null",
        "/dev/zero",
        "/dev/tty",
    ] {
        fs::set_permissions(node, Permissions::from_mode(0o666))
            .with_context(|| format!("cannot open {node} to all"))?;
    }
    for words in [
        &["busybox", "mkdir", "-p", "/bin"][..],
        &["busybox", "--install", "-s", "/bin"],
        &["busybox", "ip", "link", "set", "lo", "up"],
    ] {
        let status = Command::new(Path::new("/usr/bin").join(words[0]))
            .args(&words[1..])
            .status();
        let status = status.with_context(|| format!("cannot start {}", words[0]))?;
        anyhow::ensure!(status.success(), "{} ended with {status}", words.join(" "));
    }
    Ok(())
}

fn mounted(source: &str, place: &str, kind: &str) -> Result<()> {
    mount(source, place, kind, MountFlags::empty(), None)
        .with_context(|| format!("cannot mount {place}"))
}

/// Makes the disk the root. It is a mount of its own on the kernel's first root, which a jail's `pivot_root` could not
/// leave.
fn enter_disk() -> rustix::io::Result<()> {
    rustix::process::chdir("/disk")?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")
}

/// Returns what the host wants run, from the kernel's command line; all when it says nothing.
fn filter() -> Vec<String> {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_whitespace()
        .filter_map(|word| word.strip_prefix("lab.only="))
        .map(str::to_owned)
        .collect()
}

fn sorted(folder: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {folder}"))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Standard output is the console; it is all there is.
fn print(line: &str) {
    use std::io::Write as _;
    let _nobody_to_tell = writeln!(std::io::stdout(), "{line}");
}
