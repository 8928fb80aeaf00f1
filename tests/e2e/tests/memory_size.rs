//! A memory size's way: from the command line to the guest's own count, parsed once; and the number of processors with it.
//!
//! Method: set, restart, ask the guest's kernel. End to end, because between the two lie the daemon's file, the VmSpec and the
//! engine's argument or memory slot.

use fixture::{Home, walk};

walk!(
    the_default_is_what_info_says,
    a_new_size_counts_at_the_next_start,
    processors_count_too,
    sizes_that_cannot_be_are_refused,
);

fn guest_mib(home: &Home) -> u64 {
    let text = home
        .vm_shell("awk '/MemTotal/ {print $2}' /proc/meminfo")
        .ok()
        .text();
    text.parse::<u64>().expect("a number of KiB") / 1024
}

fn the_default_is_what_info_says(home: &mut Home) {
    let _ = home.testudo(&["run", "--", "true"]).ok();
    let said = home.info()["memory_mib"].as_u64().expect("a number");
    let seen = guest_mib(home);
    // The kernel keeps a little for itself.
    assert!(
        seen <= said && seen > said * 85 / 100,
        "{said} MiB given, {seen} seen"
    );
}

fn a_new_size_counts_at_the_next_start(home: &mut Home) {
    let before = guest_mib(home);
    let _ = home.run("vmc", &["set", "termina", "memory=700M"]).ok();
    assert_eq!(guest_mib(home), before, "it counts at the next start");
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    let _ = home.run("vmc", &["start", "--no-shell", "termina"]).ok();
    assert_eq!(home.info()["memory_mib"], 700);
    let seen = guest_mib(home);
    assert!((600..=700).contains(&seen), "{seen} MiB seen");
}

fn processors_count_too(home: &mut Home) {
    let _ = home.run("vmc", &["set", "termina", "cpus=1"]).ok();
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    assert_eq!(home.shell("nproc").ok().text(), "1");
}

fn sizes_that_cannot_be_are_refused(home: &mut Home) {
    for bad in [
        "memory=",
        "memory=lots",
        "memory=-1",
        "memory=1M",
        "memory=99999999T",
        "cpus=0",
        "cpus=1000",
        "memory",
    ] {
        let done = home.run("vmc", &["set", "termina", bad]);
        assert!(
            done.code != 0 && done.errors().contains("error"),
            "{bad}: {done}"
        );
    }
    assert_eq!(
        home.info()["memory_mib"],
        700,
        "a refused size changes nothing"
    );
}
