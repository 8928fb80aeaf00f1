//! Notices on the host that its clock was set or that the machine slept, so that guests can follow.

use std::io;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe;

/// Without any event, guests are told the time this often: an emulated clock drifts.
const DRIFT: Duration = Duration::from_secs(300);

/// Waits until the clock was set, the machine woke up, or [`DRIFT`] passed.
///
/// # Errors
/// When the kernel gives no timer.
pub(crate) async fn changed() -> io::Result<()> {
    // A timer on the wall clock far in the future; the kernel cancels it when that clock jumps, which it
    // does on every resume too.
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
    let never = Itimerspec {
        it_interval: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: Timespec {
            tv_sec: i64::MAX >> 1,
            tv_nsec: 0,
        },
    };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(&timer, flags, &never)?;
    // A timer is read like a pipe; tokio's type for one is its only safe one for other readers.
    let timer = pipe::Receiver::from_owned_fd_unchecked(timer)?;
    // Readable means cancelled; that is all there is to know.
    tokio::select! {
        ready = timer.readable() => ready.map(|_| ()),
        () = tokio::time::sleep(DRIFT) => Ok(()),
    }
}
