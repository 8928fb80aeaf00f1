//! What this process has used of the host so far, for the counters that programs report.

#![expect(unsafe_code, reason = "UNSAFETY: getrusage fills a structure")]

use std::mem::MaybeUninit;

/// Returns the processor time of all threads, in user and kernel mode, in microseconds.
#[must_use]
pub fn cpu_us() -> u64 {
    let usage = usage();
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

/// Returns the page faults of all threads, minor and major.
#[must_use]
pub fn page_faults() -> u64 {
    let usage = usage();
    unsigned(usage.ru_minflt) + unsigned(usage.ru_majflt)
}

fn usage() -> libc::rusage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to writable memory of the right size, which the call fills.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    assert_eq!(
        result, 0,
        "getrusage fails only for a wrong pointer or an unknown target"
    );
    // SAFETY: the structure is plain numbers, all zero or filled by the kernel.
    unsafe { usage.assume_init() }
}

fn micros(time: libc::timeval) -> u64 {
    unsigned(time.tv_sec) * 1_000_000 + unsigned(time.tv_usec)
}

/// The kernel counts upwards from zero in signed numbers.
fn unsigned(value: libc::c_long) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn touching_memory_faults() {
        let before = super::page_faults();
        let fresh = vec![1_u8; 8 << 20];
        assert!(super::page_faults() > before, "{}", fresh.len());
    }
}
