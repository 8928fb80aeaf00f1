//! The guest's clock is the host's: when the VM starts, and after the VM stood still.
//!
//! Method: the guest's time lies between two readings of the host's, give or take the 50 ms that nobody notices. End to end,
//! because the engine's counter, the kernel's clock and the daemon's word must agree.

use std::time::{Duration, SystemTime};

use fixture::{Home, Role, walk};
use rustix::process::{Pid, Signal, kill_process};

walk!(
    the_clock_is_right_at_the_start,
    it_is_right_after_the_engine_stood_still,
    and_after_the_daemon_stood_still_too,
);

const TOLERANCE: Duration = Duration::from_millis(50);

fn now() -> Duration {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("it is later than 1970")
}

#[track_caller]
fn is_right(home: &Home) {
    for place in ["the container", "the VM"] {
        let line = ["--", "bash", "-c", "echo $EPOCHREALTIME"];
        let before = now();
        let said = match place {
            "the VM" => home.run("vsh", &[&["termina"][..], &line].concat()),
            _ => home.testudo(&[&["run"][..], &line].concat()),
        };
        let after = now();
        let text = said.ok().text();
        let time = text
            .parse()
            .map(Duration::from_secs_f64)
            .expect("a number of seconds");
        let early = (before - TOLERANCE).saturating_sub(time);
        let late = time.saturating_sub(after + TOLERANCE);
        assert!(
            early.is_zero() && late.is_zero(),
            "{place} is {early:?} behind or {late:?} ahead"
        );
    }
}

/// Stops the processes of `role` for some seconds, as a machine that sleeps or a debugger does.
fn stand_still(home: &Home, role: Role) {
    let found = home.processes(role);
    let signal = |signal| {
        for running in &found {
            let pid = Pid::from_raw(running.pid).expect("a process has a number");
            kill_process(pid, signal).expect("it is ours and lives");
        }
    };
    signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(4));
    signal(Signal::CONT);
}

fn the_clock_is_right_at_the_start(home: &mut Home) {
    let _ = home.testudo(&["run", "--", "true"]).ok();
    is_right(home);
}

fn it_is_right_after_the_engine_stood_still(home: &mut Home) {
    stand_still(home, Role::Engine);
    is_right(home);
}

fn and_after_the_daemon_stood_still_too(home: &mut Home) {
    stand_still(home, Role::Concierge);
    stand_still(home, Role::Engine);
    is_right(home);
}
