//! What processes use, read from /proc.

use std::fs;

/// What a process and its children have used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in milliseconds.
    pub cpu_ms: u64,
    /// Memory of its own that is neither files nor shared, in KiB.
    pub memory_kib: u64,
}

/// Milliseconds of one clock tick in /proc: USER_HZ is 100 on every architecture served here.
const TICK_MS: u64 = 10;

/// Returns what process `pid` and the children it has now have used.
#[must_use]
pub fn usage(pid: u32) -> Usage {
    let mut total = own(pid);
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
    {
        let more = usage(child);
        total.cpu_ms += more.cpu_ms;
        total.memory_kib += more.memory_kib;
    }
    total
}

fn own(pid: u32) -> Usage {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything (proc_pid_stat(5)).
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let ticks = fields.get(10).unwrap_or(&0) + fields.get(11).unwrap_or(&0);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let anonymous = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = anonymous.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    Usage {
        cpu_ms: ticks * TICK_MS,
        memory_kib: kib.unwrap_or(0),
    }
}
