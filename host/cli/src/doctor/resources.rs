//! Disk and memory: whether a VM fits.

use std::path::Path;

use wire::Bytes;

use super::{Finding, Patient};

/// What the image and a VM's first day take.
const DISK_GOOD: u64 = 8 << 30;
/// Below this not even the default container can be updated.
const DISK_LEAST: u64 = 1 << 30;
/// A VM with its default memory beside a desktop.
const MEMORY_GOOD: u64 = 2 << 30;
/// Below this the guest's kernel and container do not fit.
const MEMORY_LEAST: u64 = 384 << 20;

/// Returns what was found of disk and memory.
pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    vec![disk(patient.places.data()), memory()]
}

fn disk(data: &Path) -> Finding {
    // The folder itself comes with the first VM; its file system is that of the nearest folder there is.
    let existing = data
        .ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Err(error) => Finding::fail(
            "disk",
            format!("cannot look at {}: {error}", existing.display()),
            "make the folder readable",
        ),
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("{} free for {}", Bytes(free), data.display());
            rate(
                "disk",
                free,
                (DISK_GOOD, DISK_LEAST),
                (
                    text,
                    "free some space, or move the folder with XDG_DATA_HOME",
                ),
            )
        }
    }
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let available = kib.unwrap_or(0).saturating_mul(1024);
    let text = format!("{} available", Bytes(available));
    rate(
        "memory",
        available,
        (MEMORY_GOOD, MEMORY_LEAST),
        (
            text,
            "close some programs, or give VMs less: testudo set memory=512M",
        ),
    )
}

fn rate(
    check: &'static str,
    amount: u64,
    (good, least): (u64, u64),
    (text, mend): (String, &str),
) -> Finding {
    if amount >= good {
        Finding::ok(check, text)
    } else if amount >= least {
        Finding::warn(check, text, mend)
    } else {
        Finding::fail(check, text, mend)
    }
}
