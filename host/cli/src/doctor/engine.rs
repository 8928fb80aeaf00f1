//! Which engine VMs get here: the processor, `/dev/kvm`, QEMU, and what the configuration chooses of them.
//!
//! A `/dev/kvm` that opens is not enough: where the processor shows neither `vmx` nor `svm`, a software KVM may
//! answer that interprets kernel code too slowly to boot Linux (ADR 6).

use std::io;

use link::config::EngineChoice;
use link::places::sibling;
use rustix::fs::{Mode, OFlags};

use super::packages::Package;
use super::tools::{self, Version};
use super::{Finding, Patient};

const DEVICE: &str = "/dev/kvm";
const QEMU: &str = "qemu-system-x86_64";
/// The oldest QEMU with the vhost-user front ends that our devices need.
const QEMU_MIN: Version = Version(7, 2);

/// Whether hardware virtualisation can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hardware {
    Usable,
    Unusable,
}

/// Returns what was found of processor, device, QEMU and choice.
pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flag = flag(&cpuinfo);
    let opened = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map(drop)
        .map_err(io::Error::from);
    let hardware = match (flag, &opened) {
        (Some(_), Ok(())) => Hardware::Usable,
        _ => Hardware::Unusable,
    };
    let qemu = tools::find(QEMU).map(|path| tools::version(&path));
    vec![
        processor(flag),
        device(patient, flag, opened),
        qemu_finding(patient, hardware, qemu),
        choice(patient, hardware, qemu.is_some()),
    ]
}

/// Returns the flag of /proc/cpuinfo that stands for hardware virtualisation, and the module it belongs to.
fn flag(cpuinfo: &str) -> Option<(&'static str, &'static str)> {
    let flags = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("flags")?.split_once(':'));
    let mut flags = flags?.1.split_whitespace();
    flags.find_map(|flag| match flag {
        "vmx" => Some(("vmx", "kvm_intel")),
        "svm" => Some(("svm", "kvm_amd")),
        _ => None,
    })
}

fn processor(flag: Option<(&str, &str)>) -> Finding {
    match flag {
        Some((flag, _)) => Finding::ok("processor", format!("hardware virtualisation ({flag})")),
        None => Finding::warn(
            "processor",
            "no hardware virtualisation (neither vmx nor svm): VMs are emulated, several times slower",
            "switch it on in the firmware (VT-x, AMD-V), or nested virtualisation in the machine around this one",
        ),
    }
}

fn device(patient: &Patient<'_>, flag: Option<(&str, &str)>, opened: io::Result<()>) -> Finding {
    let Some((_, module)) = flag else {
        return match opened {
            Ok(()) => Finding::warn(
                "kvm",
                format!(
                    "{DEVICE} answers, but without vmx or svm it is a software KVM, too slow to boot"
                ),
                "nothing to do: QEMU is used instead",
            ),
            Err(_) => Finding::ok(
                "kvm",
                format!("{DEVICE} is not used: the processor could not serve it"),
            ),
        };
    };
    match opened {
        Ok(()) => Finding::ok("kvm", format!("{DEVICE} can be used")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::warn(
            "kvm",
            format!("{DEVICE} is not there"),
            patient.system.as_root(&format!("modprobe {module}")),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::warn(
            "kvm",
            format!("this user may not open {DEVICE}"),
            format!(
                "{} (then log in again)",
                patient.system.as_root("usermod -aG kvm \"$USER\"")
            ),
        ),
        Err(error) => Finding::warn(
            "kvm",
            format!("{DEVICE} cannot be opened: {error}"),
            "see the kernel's log: dmesg | grep -i kvm",
        ),
    }
}

fn qemu_finding(
    patient: &Patient<'_>,
    hardware: Hardware,
    qemu: Option<Option<Version>>,
) -> Finding {
    let install = patient.system.install(Package::Qemu);
    let needed = hardware == Hardware::Unusable || patient.config.engine == EngineChoice::Qemu;
    let make = if needed { Finding::fail } else { Finding::warn };
    match qemu {
        None => make("qemu", format!("{QEMU} is not installed"), install),
        Some(None) => make("qemu", format!("{QEMU} does not say its version"), install),
        Some(Some(version)) if version < QEMU_MIN => make(
            "qemu",
            format!("version {version} is older than {QEMU_MIN}"),
            install,
        ),
        Some(Some(version)) => Finding::ok("qemu", format!("version {version}")),
    }
}

fn choice(patient: &Patient<'_>, hardware: Hardware, qemu: bool) -> Finding {
    let ours = sibling("crosvm").is_ok_and(|path| path.is_file());
    match (patient.config.engine, hardware) {
        (EngineChoice::Crosvm, Hardware::Unusable) => Finding::warn(
            "engine",
            "crosvm is configured, but hardware virtualisation cannot be used",
            "set engine = \"auto\" in config.toml",
        ),
        (EngineChoice::Crosvm, _) => Finding::ok("engine", "crosvm, as configured"),
        (EngineChoice::Qemu, _) => Finding::ok("engine", "qemu, as configured"),
        (EngineChoice::Auto, Hardware::Usable) if ours => Finding::ok(
            "engine",
            format!("crosvm: the processor virtualises and {DEVICE} opens"),
        ),
        (EngineChoice::Auto, _) if qemu => Finding::ok(
            "engine",
            "qemu, with an emulated processor: hardware virtualisation cannot be used",
        ),
        (EngineChoice::Auto, _) => Finding::fail(
            "engine",
            "no engine can run a VM here",
            patient.system.install(Package::Qemu),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_whole_words() {
        assert_eq!(flag("flags\t\t: fpu vmx sse\n"), Some(("vmx", "kvm_intel")));
        assert_eq!(flag("flags : fpu svm_lock\n"), None);
        assert_eq!(flag("model name : svm\n"), None);
    }
}
