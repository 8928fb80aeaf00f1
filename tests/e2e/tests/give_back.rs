//! What the guest does not need any more is the host's again: memory that a program frees, room that a deleted file took.
//!
//! Method: the engine's shared memory and the blocks of the disk's file on the host, before, during and after. Nobody asks for
//! anything to be given back. End to end, because allocator, balloon, file system, block device and host must all pass it on.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use fixture::{Home, Role, Running, walk};

walk!(
    a_large_file_takes_room_and_is_deleted,
    memory_that_is_freed_comes_back,
    so_does_the_room_of_the_file,
);

const MIB: u64 = 1 << 20;

/// Of the file and of the memory that are used for a while.
const LARGE: u64 = 300 * MIB;

/// The kernel reports free pages every 2 s; btrfs discards what is free 2 minutes later. An emulated machine on a busy host
/// may take several times that.
const LIMIT: Duration = Duration::from_secs(400);

fn disk(home: &Home) -> u64 {
    let file = home.path("data/testudo/vms/termina/data.btrfs");
    std::fs::metadata(file).expect("the disk is there").blocks() * 512
}

/// Returns what the guest's memory takes on the host: the pages of shared memory that the engine has in use.
fn memory() -> u64 {
    let all = Running::all();
    let engines = all.iter().filter(|running| running.is(Role::Engine));
    let used = |running: &Running| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid));
        let status = status.unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssShmem:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or_default() * 1024
    };
    // An engine that jailed itself has a keeper, which has no memory of a guest.
    engines.map(used).max().expect("there is an engine")
}

/// Returns what the disk takes here as `testudo df` says it.
fn df(home: &Home) -> u64 {
    let text = home.testudo(&["df", "--json"]).ok().text();
    let vm = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON Lines"))
        .find(|row| row["name"] == "termina")
        .expect("the VM has a row");
    vm["host_bytes"].as_u64().expect("a number")
}

/// Waits until `figure` is at most `wanted`.
#[track_caller]
fn falls(what: &str, wanted: u64, figure: impl Fn() -> u64) {
    let start = Instant::now();
    while figure() > wanted {
        assert!(
            start.elapsed() < LIMIT,
            "{what} still takes {} MiB, not {} MiB",
            figure() / MIB,
            wanted / MIB
        );
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn a_large_file_takes_room_and_is_deleted(home: &mut Home) {
    let _ = home.shell("sync").ok();
    let before = disk(home);
    let _ = home
        .shell(&format!("head -c {LARGE} /dev/urandom > ~/large; sync"))
        .ok();
    let full = disk(home);
    assert!(
        full > before + LARGE * 9 / 10,
        "{before} bytes before, {full} with the file"
    );
    assert!(
        df(home).abs_diff(full) < 16 * MIB,
        "df says {}, the file system {full}",
        df(home)
    );
    let _ = home
        .shell(&format!("rm ~/large; sync; echo {before} > ~/before; sync"))
        .ok();
}

fn memory_that_is_freed_comes_back(home: &mut Home) {
    // Pages of a tmpfs are memory that cannot be dropped; noise, since nobody should share pages of zeros.
    let _ = home
        .shell(&format!("head -c {LARGE} /dev/urandom > /dev/shm/large"))
        .ok();
    let full = memory();
    assert!(full > LARGE, "{full} bytes hold {LARGE}");
    let _ = home.shell("rm /dev/shm/large").ok();
    falls("the guest's memory", full - LARGE * 2 / 3, memory);
    // What was given back is there for the next who needs it.
    let line = format!(
        "head -c {LARGE} /dev/urandom > /dev/shm/large; wc -c < /dev/shm/large; rm /dev/shm/large"
    );
    assert_eq!(home.shell(&line).ok().text(), LARGE.to_string());
}

fn so_does_the_room_of_the_file(home: &mut Home) {
    let before: u64 = home
        .shell("cat ~/before")
        .ok()
        .text()
        .parse()
        .expect("a number");
    falls("the disk", before + LARGE / 4, || disk(home));
    assert!(df(home) <= before + LARGE / 3, "df still says {}", df(home));
}
