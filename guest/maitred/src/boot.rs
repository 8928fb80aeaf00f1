//! What this boot is known by: its token and the times of its first steps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The kernel keeps at most 4096 bytes of command line (`COMMAND_LINE_SIZE` has been 2048 on x86 for long).
const COMMAND_LINE: &str = "/proc/cmdline";

/// When PID 1 began, as time since the kernel started its clock. Copied into every agent of this boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// From the kernel's start to PID 1's first instruction.
    pub(crate) kernel_to_init: Duration,
}

impl Times {
    /// Takes the time; called first of all in PID 1.
    pub(crate) fn at_init() -> Self {
        Self {
            kernel_to_init: uptime(),
        }
    }
}

/// Returns the time since the kernel started.
pub(crate) fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// What the kernel command line says to us: nothing but these two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// Proves to the host that the one who reports is this boot.
    pub(crate) token: String,
    /// Log filter, such as `debug`.
    pub(crate) log: Option<String>,
}

impl CommandLine {
    /// Reads this boot's.
    pub(crate) fn read() -> Self {
        Self::parse(&std::fs::read_to_string(COMMAND_LINE).unwrap_or_default())
    }

    fn parse(line: &str) -> Self {
        let value = |key: &str| {
            let word = line
                .split_ascii_whitespace()
                .find_map(|word| word.strip_prefix(key));
            word.map(str::to_owned)
        };
        Self {
            token: value("testudo.token=").unwrap_or_default(),
            log: value("testudo.log="),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_words_are_taken_from_the_command_line() {
        let line =
            "root=/dev/vda ro testudo.token=0a1b quiet testudo.log=debug x.testudo.token=no\n";
        let read = CommandLine::parse(line);
        assert_eq!(
            read,
            CommandLine {
                token: "0a1b".to_owned(),
                log: Some("debug".to_owned())
            }
        );
        assert_eq!(CommandLine::parse(""), CommandLine::default());
    }
}
