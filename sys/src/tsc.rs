//! The processor's time stamp counter, as a guest's kernel will find it, on the host.

#![expect(unsafe_code, reason = "UNSAFETY: reads the time stamp counter")]

use std::time::Duration;

use rustix::thread::{ClockId, NanosleepRelativeResult, clock_nanosleep_relative};
use rustix::time::{ClockId as RawClock, Timespec, clock_gettime};

/// How long it is measured: reading clock and counter takes below 100 ns, so this is right to 5 in a million.
const SPAN: Duration = Duration::from_millis(20);

/// Counters of processors of the last twenty years; anything else is a mistake.
const PLAUSIBLE_KHZ: std::ops::Range<u64> = 100_000..20_000_000;

/// Measures the counter's frequency in kHz, which takes [`SPAN`]. `None` when the processor does not promise that
/// it never changes, or when the measurement was disturbed.
#[must_use]
pub fn frequency_khz() -> Option<u32> {
    if !is_constant(&std::fs::read_to_string("/proc/cpuinfo").ok()?) {
        return None;
    }
    let (began_ns, began) = sample();
    let mut left = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(SPAN.subsec_nanos()),
    };
    while let NanosleepRelativeResult::Interrupted(rest) =
        clock_nanosleep_relative(ClockId::Monotonic, &left)
    {
        left = rest;
    }
    let (ended_ns, ended) = sample();
    let ticks = u128::from(ended.checked_sub(began)?);
    let khz = ticks * 1_000_000 / u128::from(ended_ns.checked_sub(began_ns)?);
    let khz = u64::try_from(khz).ok()?;
    if PLAUSIBLE_KHZ.contains(&khz) {
        u32::try_from(khz).ok()
    } else {
        None
    }
}

/// Returns the time in nanoseconds and the counter at one moment: of a few tries, the least disturbed.
fn sample() -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..5 {
        let before = counter();
        let now = clock_gettime(RawClock::MonotonicRaw);
        let after = counter();
        let took = after.saturating_sub(before);
        if took < best.0 {
            let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
            let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
            best = (
                took,
                seconds * 1_000_000_000 + nanoseconds,
                before + took / 2,
            );
        }
    }
    (best.1, best.2)
}

fn counter() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 processor; it touches no memory, and Linux allows it to programs
    // unless they ask otherwise (PR_SET_TSC), which none of ours does.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Returns whether the processor says that its counter runs evenly, whatever it does.
fn is_constant(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| {
        ["constant_tsc", "nonstop_tsc"]
            .iter()
            .all(|wanted| line.split_whitespace().any(|flag| flag == *wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (Some(one), Some(two)) = (frequency_khz(), frequency_khz()) else {
            let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
            assert!(
                !is_constant(&cpuinfo),
                "a constant counter cannot be measured"
            );
            return;
        };
        assert!(one.abs_diff(two) <= one / 1000, "{one} and {two} kHz");
    }

    #[test]
    fn both_promises_are_needed() {
        assert!(is_constant("flags : fpu nonstop_tsc constant_tsc\n"));
        assert!(!is_constant(
            "flags : fpu constant_tsc\nbugs : nonstop_tsc\n"
        ));
        assert!(!is_constant(""));
    }
}
