//! How the VM fares: memory, pressure, load and disk, read from `/proc` when asked and at no other time.

use wire::Fault;
use wire::proto::{DiskFigures, VmFigures};

use crate::boot;
use crate::fault::OrFault;

/// Reads everything that the kernel tells; boot times and the disk are the caller's.
pub(crate) fn read(disk: Option<DiskFigures>) -> Result<VmFigures, Fault> {
    let memory = Memory::parse(&file("/proc/meminfo")?);
    let (load, processes) = load(&file("/proc/loadavg")?);
    Ok(VmFigures {
        memory_total_bytes: memory.total,
        memory_available_bytes: memory.available,
        memory_used_bytes: memory.total.saturating_sub(memory.free + memory.cache),
        memory_pressure: pressure(&file("/proc/pressure/memory")?),
        cpu_pressure: pressure(&file("/proc/pressure/cpu")?),
        io_pressure: pressure(&file("/proc/pressure/io")?),
        uptime_us: u64::try_from(boot::uptime().as_micros()).unwrap_or(u64::MAX),
        disk,
        processes,
        load,
        ..VmFigures::default()
    })
}

fn file(path: &str) -> Result<String, Fault> {
    std::fs::read_to_string(path).or_fault("E-FIGURES", || format!("cannot read {path}"))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Memory {
    total: u64,
    free: u64,
    available: u64,
    cache: u64,
}

impl Memory {
    fn parse(meminfo: &str) -> Self {
        let mut memory = Self::default();
        for line in meminfo.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let kib: u64 = value
                .split_ascii_whitespace()
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
            match key {
                "MemTotal" => memory.total = kib << 10,
                "MemFree" => memory.free = kib << 10,
                "MemAvailable" => memory.available = kib << 10,
                // Shared memory counts as cache and cannot be dropped.
                "Buffers" | "Cached" | "SReclaimable" => memory.cache += kib << 10,
                "Shmem" => memory.cache = memory.cache.saturating_sub(kib << 10),
                _ => {}
            }
        }
        memory
    }
}

/// Returns `some avg10` of a pressure file, per cent.
fn pressure(text: &str) -> f32 {
    let some = text
        .lines()
        .find(|line| line.starts_with("some"))
        .unwrap_or_default();
    let average = some
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("avg10="));
    average
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0)
}

/// Returns the load of one minute and the number of threads from `/proc/loadavg`.
fn load(text: &str) -> (f32, u32) {
    let mut words = text.split_ascii_whitespace();
    let load = words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0);
    let entities = words.nth(2).and_then(|word| word.split_once('/'));
    (
        load,
        entities.and_then(|(_, all)| all.parse().ok()).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let memory = Memory::parse(
            "MemTotal:  1000 kB\nMemFree: 400 kB\nMemAvailable: 700 kB\nBuffers: 10 kB\nCached: 290 kB\nShmem: 50 kB\nHugePages_Total: 0\n",
        );
        let expected = Memory {
            total: 1000 << 10,
            free: 400 << 10,
            available: 700 << 10,
            cache: 250 << 10,
        };
        assert_eq!(memory, expected);
        let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=0\nfull avg10=9.00 avg60=0.00\n";
        assert!((pressure(text) - 1.5).abs() < f32::EPSILON);
        assert_eq!(load("0.25 0.10 0.01 1/123 4567\n"), (0.25, 123));
    }

    #[test]
    fn files_of_another_shape_read_as_nothing() {
        assert_eq!(Memory::parse("garbage"), Memory::default());
        assert!(pressure("").abs() < f32::EPSILON);
        assert_eq!(load(""), (0.0, 0));
    }
}
