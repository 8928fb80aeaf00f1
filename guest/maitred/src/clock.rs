//! The VM's clock, set from the host's.

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use wire::Fault;
use wire::proto::Time;

use crate::fault::OrFault;

const SECOND_NS: u64 = 1_000_000_000;

/// Differences up to this are the message's own way here and not worth a step backwards in time.
const TOLERANCE_NS: u64 = 5_000_000;

/// Sets the real-time clock to `time` unless it is right already.
pub(crate) fn set(time: Time) -> Result<(), Fault> {
    let now = clock_gettime(ClockId::Realtime);
    let now_ns = u64::try_from(now.tv_sec).unwrap_or_default() * SECOND_NS
        + u64::try_from(now.tv_nsec).unwrap_or_default();
    let Some(target) = target(now_ns, time.unix_ns) else {
        return Ok(());
    };
    clock_settime(ClockId::Realtime, target)
        .or_fault("E-CLOCK", || "cannot set the clock".to_owned())
}

fn target(now_ns: u64, wanted_ns: u64) -> Option<Timespec> {
    if wanted_ns == 0 || now_ns.abs_diff(wanted_ns) <= TOLERANCE_NS {
        return None;
    }
    Some(Timespec {
        tv_sec: i64::try_from(wanted_ns / SECOND_NS).expect("2^64 ns are fewer than 2^63 s"),
        tv_nsec: i64::try_from(wanted_ns % SECOND_NS).expect("less than a second"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_left_and_large_ones_set() {
        let noon = 1_700_000_000 * SECOND_NS;
        assert_eq!(target(noon, noon + TOLERANCE_NS), None);
        assert_eq!(target(noon, 0), None);
        let set = target(noon, noon - SECOND_NS - 1).unwrap();
        assert_eq!((set.tv_sec, set.tv_nsec), (1_699_999_998, 999_999_999));
    }
}
