//! The kill matrix: SIGKILL of every process at every stage of a start, and while the container works. The next command must
//! work, nothing may be lost, nothing left running.
//!
//! Method: stages are read from the client's own report (`--json`), so the blow falls inside the stage that it names. End to
//! end, because only the whole tree of processes can leave something behind.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use fixture::{Home, Role, walk};

walk!(
    the_daemon_dies_at_each_stage,
    the_engine_dies_at_each_stage,
    a_device_daemon_dies_at_each_stage,
    the_client_is_interrupted_at_each_stage,
    the_daemon_dies_while_the_container_works,
    the_engine_dies_while_the_container_works,
    each_device_daemon_dies_while_the_container_works,
    the_agent_dies_while_the_container_works,
    everything_dies_at_once,
    two_starts_at_once_start_one_vm,
);

/// Longest start on two busy emulating cores.
const START_LIMIT: Duration = Duration::from_secs(60);

const DEVICES: &[Role] = &[
    Role::Device("vsock"),
    Role::Device("net"),
    Role::Device("block"),
    Role::Device("rng"),
    Role::Passt,
];

/// Writes what must not be lost, once, and returns the stages that a start goes through.
fn prepare(home: &Home) -> Vec<String> {
    let _ = home
        .shell("test -e ~/kept || { echo kept > ~/kept; sync; }")
        .ok();
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    let report = home
        .run("vmc", &["start", "--no-shell", "--json", "termina"])
        .ok()
        .text();
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    let mut stages: Vec<String> = report.lines().filter_map(begun).collect();
    stages.dedup();
    assert!(stages.len() >= 3, "a start has more stages than {stages:?}");
    stages
}

/// Returns the stage whose beginning a line of the report tells.
fn begun(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let begins = line["type"] == "stage" && line["elapsed_us"].is_null();
    begins.then(|| line["name"].as_str().map(str::to_owned))?
}

/// Starts the VM in the background and returns when it has come to `stage`.
fn start_until(home: &Home, stage: &str) -> Child {
    let mut client = home.background("vmc", &["start", "--no-shell", "--json", "termina"]);
    let report = BufReader::new(client.stdout.take().expect("it is piped"));
    let reached = report
        .lines()
        .map_while(Result::ok)
        .any(|line| begun(&line).as_deref() == Some(stage));
    assert!(reached, "the start never comes to {stage}");
    client
}

/// Asserts that a start of the VM, a look at the kept file and a stop work as if nothing had happened.
fn all_is_well(home: &Home, after: &str) {
    let start = Instant::now();
    let done = home.testudo(&["run", "--", "cat", "kept"]);
    assert!(
        done.code == 0 && done.text() == "kept",
        "after {after}: {done}"
    );
    assert!(
        start.elapsed() < START_LIMIT,
        "after {after} it took {:?}",
        start.elapsed()
    );
    assert_eq!(
        home.processes(Role::Engine).len(),
        1,
        "after {after}: engines"
    );
    assert_eq!(
        home.processes(Role::Device("vsock")).len(),
        1,
        "after {after}: vsock daemons"
    );
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    home.assert_gone(DEVICES);
    home.assert_gone(&[Role::Engine]);
}

fn at_each_stage(home: &Home, what: &str, blow: impl Fn(&Home, &mut Child)) {
    for stage in prepare(home) {
        let mut client = start_until(home, &stage);
        blow(home, &mut client);
        let status = client.wait().expect("it is our child");
        // Killed early, the start fails; killed when the last stage was just over, it may have succeeded.
        assert!(
            status.code().is_some() || what == "the client",
            "{what} at {stage}: the client crashed: {status}"
        );
        all_is_well(home, &format!("{what} at {stage}"));
    }
}

fn the_daemon_dies_at_each_stage(home: &mut Home) {
    at_each_stage(home, "the daemon", |home, _| {
        assert_eq!(home.kill(Role::Concierge), 1);
    });
}

fn the_engine_dies_at_each_stage(home: &mut Home) {
    at_each_stage(home, "the engine", |home, _| {
        // In the first stages there is none yet.
        let _ = home.kill(Role::Engine);
    });
}

fn a_device_daemon_dies_at_each_stage(home: &mut Home) {
    at_each_stage(home, "the vsock daemon", |home, _| {
        let _ = home.kill(Role::Device("vsock"));
    });
}

fn the_client_is_interrupted_at_each_stage(home: &mut Home) {
    at_each_stage(home, "the client", |_, client| {
        let pid = rustix::process::Pid::from_child(client);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    });
}

/// Starts a command in the container that works on until somebody dies.
fn work(home: &Home) -> Child {
    let _ = prepare(home);
    let mut client = home.background(
        "testudo",
        &[
            "run",
            "--",
            "sh",
            "-c",
            "echo begun; while :; do date > ~/busy; done",
        ],
    );
    let mut line = String::new();
    let stdout = client.stdout.as_mut().expect("it is piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("the command speaks");
    assert_eq!(line, "begun\n");
    client
}

/// Asserts that the client notices the end of the command instead of hanging.
fn client_ends(client: &mut Child, after: &str) {
    let start = Instant::now();
    while client.try_wait().expect("it is our child").is_none() {
        assert!(
            start.elapsed() < START_LIMIT,
            "the client hangs after {after}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn the_daemon_dies_while_the_container_works(home: &mut Home) {
    let mut client = work(home);
    assert_eq!(home.kill(Role::Concierge), 1);
    client_ends(&mut client, "the daemon's death");
    // Its children do not outlive it.
    home.assert_gone(&[Role::Engine]);
    home.assert_gone(DEVICES);
    all_is_well(home, "the daemon's death");
}

fn the_engine_dies_while_the_container_works(home: &mut Home) {
    let mut client = work(home);
    assert_eq!(home.kill(Role::Engine), 1);
    client_ends(&mut client, "the engine's death");
    home.assert_gone(DEVICES);
    all_is_well(home, "the engine's death");
}

fn each_device_daemon_dies_while_the_container_works(home: &mut Home) {
    for role in DEVICES {
        let mut client = work(home);
        if home.kill(*role) == 0 {
            // QEMU may carry this device itself.
            client.kill().expect("it runs");
        }
        if matches!(role, Role::Device("vsock")) {
            client_ends(&mut client, "the vsock daemon's death");
        } else {
            // The terminal does not go through this one; whether the VM goes on is not promised.
            let _ = client.kill();
            client.wait().expect("it is our child");
        }
        all_is_well(home, &format!("the death of {role:?}"));
    }
}

fn the_agent_dies_while_the_container_works(home: &mut Home) {
    let mut client = work(home);
    let boot = home
        .vm_shell("cat /proc/sys/kernel/random/boot_id")
        .ok()
        .text();
    // It kills the very process that carries its own shell, so its status says nothing.
    let _ = home.vm_shell("pkill -KILL -f maitred-agent; sleep 5");
    let _ = client.kill();
    client.wait().expect("it is our child");
    let again = home
        .shell("cat /proc/sys/kernel/random/boot_id; cat ~/kept")
        .ok()
        .text();
    assert_eq!(again, format!("{boot}\nkept"), "the VM did not go on");
    all_is_well(home, "the agent's death");
}

fn everything_dies_at_once(home: &mut Home) {
    let mut client = work(home);
    home.kill_everything();
    client.wait().expect("it is our child");
    all_is_well(home, "the death of everything");
}

fn two_starts_at_once_start_one_vm(home: &mut Home) {
    let _ = prepare(home);
    let _ = home.testudo(&["shutdown"]).ok();
    let clients: Vec<Child> = (0..3)
        .map(|_| {
            home.background(
                "testudo",
                &["run", "--", "cat", "/proc/sys/kernel/random/boot_id"],
            )
        })
        .collect();
    let boots: Vec<_> = clients
        .into_iter()
        .map(|client| client.wait_with_output().expect("it is our child"))
        .collect();
    for boot in &boots {
        assert!(
            boot.status.success(),
            "{}",
            String::from_utf8_lossy(&boot.stderr)
        );
        assert_eq!(boot.stdout, boots[0].stdout);
    }
    assert_eq!(home.processes(Role::Concierge).len(), 1);
    assert_eq!(home.processes(Role::Engine).len(), 1);
}
