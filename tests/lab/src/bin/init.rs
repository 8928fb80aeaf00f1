//! PID 1 of the lab, the VM in which a real KVM runs: mounts what tests need, loads KVM, runs each test program,
//! says how it went on the console, and powers off.
//!
//! Everything is in the initial RAM file system: `/modules` in their order, `/tests`, `/programs`, `/image`; only
//! Termina's two file systems are disks, which get their names in `/image` here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};
use rustix::system::RebootCommand;

/// What the host looks for on the console.
const PASSED: &str = "LAB: passed";
const FAILED: &str = "LAB: failed";

fn main() -> ExitCode {
    let failed = work();
    let line = match &failed {
        Ok(0) => PASSED.to_owned(),
        Ok(count) => format!("{FAILED}: {count} test programs"),
        Err(error) => format!("{FAILED}: {error:#}"),
    };
    print(&line);
    rustix::fs::sync();
    let _nothing_to_go_back_to = rustix::system::reboot(RebootCommand::PowerOff);
    ExitCode::FAILURE
}

/// Returns how many test programs failed.
fn work() -> Result<usize> {
    leave_first_root().context("cannot leave the first root")?;
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
    ] {
        fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
        mount(kind, place, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {place}"))?;
    }
    for module in sorted("/modules")? {
        let file = fs::File::open(&module)?;
        rustix::system::finit_module(&file, c"", 0)
            .with_context(|| format!("cannot load {}", module.display()))?;
    }
    anyhow::ensure!(
        Path::new("/dev/kvm").exists(),
        "the modules made no /dev/kvm"
    );
    name_disks().context("cannot name the disks")?;
    let filter = filter();
    let mut failed = 0;
    for test in sorted("/tests")? {
        let mut command = Command::new(&test);
        command
            .args(["--test-threads=1", "--nocapture"])
            .args(&filter)
            .env_clear();
        command
            .env("TESTUDO_LAB_PROGRAMS", "/programs")
            .env("TESTUDO_LAB_IMAGE", "/image");
        command.env("RUST_BACKTRACE", "0").env("PATH", "/programs");
        print(&format!("LAB: {}", test.display()));
        let status = command
            .status()
            .with_context(|| format!("cannot start {}", test.display()))?;
        failed += usize::from(!status.success());
    }
    Ok(failed)
}

/// Makes the root a mount on the kernel's first root: a jail's `pivot_root` cannot leave the first root itself.
fn leave_first_root() -> rustix::io::Result<()> {
    rustix::mount::mount_bind("/", "/tmp")?;
    rustix::process::chdir("/tmp")?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")
}

/// Gives each disk the name that the host gave it as its serial number: the kernel's own names depend on luck.
fn name_disks() -> Result<()> {
    for disk in sorted("/sys/block")? {
        let Ok(serial) = fs::read_to_string(disk.join("device/serial")) else {
            continue;
        };
        let node = Path::new("/dev").join(disk.file_name().context("a disk without a name")?);
        std::os::unix::fs::symlink(node, Path::new("/image").join(serial.trim()))?;
    }
    Ok(())
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
