//! The whole product on our own engine, as an ordinary user: chosen by itself, asked for, and within its budget of exits.
//!
//! Method: the fixture of the end-to-end suite, in the lab. What it proves beside the walks that run here too is that they
//! ran on the engine they are meant to run on.

use std::time::{Duration, Instant};

use fixture::{Home, walk};

walk!(
    our_engine_runs_where_the_processor_virtualises,
    the_guest_is_ready_within_its_budget_of_exits,
    the_guest_has_a_network,
    a_restart_from_inside_ends_the_vm_and_says_so,
    the_engine_can_be_asked_for,
);

/// Issue 3: from power-on until the guest's agent is ready.
const EXITS: u64 = 2000;

/// Everything here is emulated twice.
const PATIENCE: Duration = Duration::from_secs(60);

fn our_engine_runs_where_the_processor_virtualises(home: &mut Home) {
    assert_eq!(home.shell("echo $((6 * 7)); exit 3").code(3).text(), "42");
    let info = home.info();
    assert_eq!(info["engine"], "crosvm", "{info}");
    assert_eq!(info["engine_reason"], "the processor virtualises", "{info}");
}

fn the_guest_is_ready_within_its_budget_of_exits(home: &mut Home) {
    let log = home.path("state/testudo/vms/termina/vm.log");
    let log = std::fs::read_to_string(log).expect("it is written");
    let line = log.lines().find(|line| line.contains("exits so far"));
    let line = line.expect("the engine counts");
    let before = line.split(" exits so far").next().unwrap_or_default();
    let exits = before.rsplit(' ').next().and_then(|word| word.parse().ok());
    let exits: u64 = exits.expect("a number");
    let after = line.split("page faults; ").nth(1).unwrap_or_default();
    let cpu = after.split(' ').next().and_then(|word| word.parse().ok());
    let cpu: u32 = cpu.expect("a number");
    lab::figures(&[
        ("exits", f64::from(u32::try_from(exits).expect("few"))),
        ("start_cpu_ms", f64::from(cpu) / 1000.0),
    ]);
    assert!(exits <= EXITS, "{line}");
}

fn the_guest_has_a_network(home: &mut Home) {
    let seen = home.vm_shell("busybox ip addr").ok().text();
    assert!(seen.contains("100.115.92.2"), "{seen}");
}

fn a_restart_from_inside_ends_the_vm_and_says_so(home: &mut Home) {
    // It takes the shell's own connection along, so its status says nothing.
    let _ = home.vm_shell("busybox reboot -f");
    let start = Instant::now();
    while home.info()["state"] != "stopped" {
        assert!(start.elapsed() < PATIENCE, "{}", home.info());
        std::thread::sleep(Duration::from_millis(100));
    }
    let info = home.info();
    let last = info["last_end"].as_str().expect("text");
    assert!(last.contains("the guest asked for a restart"), "{info}");
}

fn the_engine_can_be_asked_for(home: &mut Home) {
    let start = |engine: &str| {
        let words = ["start", "--no-shell", "--engine", engine, "termina"];
        home.run("vmc", &words)
    };
    let _ = start("crosvm").ok();
    assert_eq!(home.info()["engine_reason"], "asked for with --engine");
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    let done = start("qemu");
    assert!(done.code != 0, "{done}");
    let _ = done.says(&["error:", "qemu-system-x86_64 is not installed"]);
    let done = start("bochs");
    assert!(done.code != 0, "{done}");
    let _ = done.says(&["error:", "bochs"]);
}
