//! The kill matrix: SIGKILL of every process at every stage of a start, and while the container works. The next command must
//! work, nothing may be lost, nothing left running.
//!
//! Method: stages are read from the client's own report (`--json`), so the blow falls inside the stage that it names. End to
//! end, because only the whole tree of processes can leave something behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fixture::{Home, Role, walk};
use wire::proto::vsh_request::Request;
use wire::proto::{VshRequest, VshSetup};
use wire::{ports, vsh};

walk!(
    the_daemon_dies_at_each_stage,
    the_engine_dies_at_each_stage,
    each_device_dies_at_each_stage,
    the_client_is_interrupted_at_each_stage,
    the_agent_dies_during_a_start,
    the_daemon_dies_while_the_container_works,
    the_engine_dies_while_the_container_works,
    each_device_dies_while_the_container_works,
    the_agent_dies_while_the_container_works,
    everything_dies_at_once,
    two_starts_at_once_start_one_vm,
    the_first_start_is_interrupted_where_things_are_made,
);

/// Longest start on two busy emulating cores.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What carries a VM beside its engine.
const DEVICES: &[Role] = &[
    Role::Device("vsock"),
    Role::Device("net"),
    Role::Device("block"),
    Role::Passt,
];

/// What a whole start goes through.
const START: &[&str] = &["run", "--json", "--", "true"];

/// Writes what must not be lost, once, and returns the stages that a start goes through, the VM being stopped.
fn stages(home: &Home) -> &'static [String] {
    static STAGES: OnceLock<Vec<String>> = OnceLock::new();
    STAGES.get_or_init(|| {
        let _ = home.shell("echo kept > ~/kept; sync").ok();
        let _ = home.run("vmc", &["stop", "termina"]).ok();
        let report = home.testudo(START).ok().errors();
        let _ = home.run("vmc", &["stop", "termina"]).ok();
        let stages: Vec<String> = report.lines().filter_map(begun).collect();
        assert!(stages.len() >= 6, "a start has more stages than {stages:?}");
        stages
    })
}

/// Returns the stages in which the engine and the devices are there.
fn stages_with_machine(home: &Home) -> &'static [String] {
    let stages = stages(home);
    let first = stages.iter().position(|stage| stage == "engine");
    &stages[first.expect("the engine has a stage")..]
}

/// Returns the stage whose beginning a line of the report tells.
fn begun(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let begins = line["type"] == "stage" && line["elapsed_us"].is_null();
    begins.then(|| line["name"].as_str().map(str::to_owned))?
}

/// Begins a start in the background and returns when it has come to `stage`.
fn start_until(home: &Home, stage: &str) -> Child {
    start_and_listen(home, stage).0
}

/// As [`start_until`], with the rest of the report, which is read whether or not anybody asks for it: one that nobody reads
/// would hold the client up.
fn start_and_listen(home: &Home, stage: &str) -> (Child, JoinHandle<String>) {
    let mut client = home.background("testudo", START);
    let mut report = BufReader::new(client.stderr.take().expect("it is piped"));
    let reached = report
        .by_ref()
        .lines()
        .map_while(Result::ok)
        .any(|line| begun(&line).as_deref() == Some(stage));
    assert!(reached, "the start never comes to {stage}");
    let rest = std::thread::spawn(move || {
        let mut rest = String::new();
        // What came before a failure is what there is.
        let _ = report.read_to_string(&mut rest);
        rest
    });
    (client, rest)
}

/// Asserts that a start of the VM, a look at the kept file and an end work as if nothing had happened.
fn all_is_well(home: &Home, after: &str) {
    let done = home.testudo(&["run", "--quiet", "--", "cat", "kept"]);
    assert!(
        done.code == 0 && done.text() == "kept",
        "after {after}: {done}"
    );
    let engines = home.processes(Role::Engine);
    assert_eq!(engines.len(), 1, "after {after}: {engines:?}");
    for device in DEVICES {
        // A jailed daemon and its keeper have one command line.
        let found = home.processes(*device);
        assert!((1..=2).contains(&found.len()), "after {after}: {found:?}");
    }
    // A polite end would take longer and prove no more: the next start finds whatever there is.
    let _ = home.run("vmc", &["kill", "termina"]).ok();
    home.assert_gone(DEVICES);
    home.assert_gone(&[Role::Engine]);
}

/// Waits until the client has ended; a hanging one is what users would curse.
fn client_ends(mut client: Child, after: &str) {
    let start = Instant::now();
    loop {
        if let Some(status) = client.try_wait().expect("it is our child") {
            assert!(
                status.code().is_some(),
                "after {after} it crashed: {status}"
            );
            return;
        }
        assert!(
            start.elapsed() < START_LIMIT,
            "the client hangs after {after}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn the_daemon_dies_at_each_stage(home: &mut Home) {
    for stage in stages(home) {
        let after = format!("the daemon's death at {stage}");
        let client = start_until(home, stage);
        assert_eq!(home.kill(Role::Concierge), 1, "{after}");
        client_ends(client, &after);
        home.assert_gone(&[Role::Engine]);
        home.assert_gone(DEVICES);
        all_is_well(home, &after);
    }
}

fn dies_at_each_stage(home: &Home, role: Role) {
    for stage in stages_with_machine(home) {
        let after = format!("the death of {role:?} at {stage}");
        let client = start_until(home, stage);
        // In the first of these stages it is about to be started.
        let _ = home.wait_for(role, START_LIMIT);
        assert!(home.kill(role) > 0, "{after}");
        client_ends(client, &after);
        all_is_well(home, &after);
    }
}

fn the_engine_dies_at_each_stage(home: &mut Home) {
    dies_at_each_stage(home, Role::Engine);
}

fn each_device_dies_at_each_stage(home: &mut Home) {
    for role in DEVICES {
        dies_at_each_stage(home, *role);
    }
}

fn the_client_is_interrupted_at_each_stage(home: &mut Home) {
    for stage in stages(home) {
        let after = format!("Ctrl-C at {stage}");
        let said = interrupted_start(home, stage, &after);
        // In the last stage the command may be there already, and then the signal is its own.
        if stage != "shell" {
            assert_goes_on(home, &said, &after);
        }
        all_is_well(home, &after);
    }
}

/// Interrupts a start at `stage` and returns what it still said.
fn interrupted_start(home: &Home, stage: &str, after: &str) -> String {
    let (client, rest) = start_and_listen(home, stage);
    let pid = rustix::process::Pid::from_child(&client);
    // One that has just ended cannot be interrupted any more.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    client_ends(client, after);
    rest.join().expect("the reader does not panic")
}

/// Asserts that an interrupted start says that it goes on, and that this is true.
fn assert_goes_on(home: &Home, said: &str, after: &str) {
    let notes: Vec<String> = said.lines().filter_map(noted).collect();
    let told = notes.iter().any(|note| {
        let goes_on = note.starts_with("interrupted; ") && note.contains(" goes on starting");
        goes_on && note.contains("; to stop it: ")
    });
    assert!(told, "after {after} nobody says what goes on: {said}");
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let info = home.info();
        if info["state"] == "running" {
            return;
        }
        assert_eq!(info["state"], "starting", "after {after}: {info}");
        assert!(Instant::now() < deadline, "after {after} it never runs");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the text of a line of the report that is a note.
fn noted(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_note = line["type"] == "note";
    is_note.then(|| line["text"].as_str().map(str::to_owned))?
}

/// Interrupts the start that makes disk and container, in the stages that make something and beside them. What is there
/// afterwards is whole, once.
fn the_first_start_is_interrupted_where_things_are_made(home: &mut Home) {
    let _ = stages(home);
    for stage in ["disk", "network", "container", "files"] {
        let after = format!("Ctrl-C at {stage} of the first start");
        let _ = home
            .run("vmc", &["destroy", "--force", "--yes", "termina"])
            .ok();
        let said = interrupted_start(home, stage, &after);
        assert!(
            said.contains("interrupted; "),
            "after {after} nobody says what goes on: {said}"
        );
        let done = home.shell("id --user --name && test -d ~ && hostname");
        assert!(
            done.code == 0 && done.text().ends_with("penguin"),
            "after {after}: {done}"
        );
        let list = home.testudo(&["list", "--json"]).ok().text();
        assert_eq!(list.lines().count(), 1, "after {after}: {list}");
        let scratch = home.vm_shell("ls -A /data/containers").ok().text();
        assert_eq!(scratch, "penguin", "after {after}");
    }
}

/// Kills the agent as soon as there is one that starts a command for us, while the daemon still configures the VM. The
/// daemon gives a VM that is not up to no client, so this one goes to the VM's socket itself.
fn the_agent_dies_during_a_start(home: &mut Home) {
    let _ = stages(home);
    let client = start_until(home, "kernel");
    let deadline = Instant::now() + START_LIMIT;
    while !strike_agent(home) {
        assert!(Instant::now() < deadline, "the agent cannot be reached");
        std::thread::sleep(Duration::from_millis(2));
    }
    client_ends(client, "the agent's death during a start");
    all_is_well(home, "the agent's death during a start");
}

/// Has the VM's shell server kill the agent; returns whether it took the command.
fn strike_agent(home: &Home) -> bool {
    let attempt = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(home.path("run/testudo/vm/3/vsock.sock"))?;
        stream.write_all(format!("CONNECT {}\n", ports::VSHD).as_bytes())?;
        let mut answer = [0; 3];
        stream.read_exact(&mut answer)?;
        let setup = VshSetup {
            argv: ["killall", "-KILL", "maitred-agent"]
                .map(str::to_owned)
                .to_vec(),
            ..VshSetup::default()
        };
        let request = Some(Request::Setup(setup));
        let mut frame = Vec::new();
        vsh::encode(&VshRequest { request }, &mut frame);
        stream.write_all(&frame)?;
        // The rest of the acknowledgement, and what the command says until it has ended.
        let mut said = Vec::new();
        stream.read_to_end(&mut said)?;
        Ok(answer == *b"OK " && said.len() > 16)
    };
    attempt().unwrap_or(false)
}

/// Starts a command in the container that works on until somebody dies.
fn work(home: &Home) -> Child {
    let _ = stages(home);
    let line = "echo begun; while :; do date > ~/busy; done";
    let mut client = home.background("testudo", &["run", "--quiet", "--", "sh", "-c", line]);
    let mut line = String::new();
    let stdout = client.stdout.as_mut().expect("it is piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("the command speaks");
    assert_eq!(line, "begun\n");
    client
}

fn the_daemon_dies_while_the_container_works(home: &mut Home) {
    let client = work(home);
    assert_eq!(home.kill(Role::Concierge), 1);
    client_ends(client, "the daemon's death");
    // Its children do not outlive it.
    home.assert_gone(&[Role::Engine]);
    home.assert_gone(DEVICES);
    all_is_well(home, "the daemon's death");
}

fn the_engine_dies_while_the_container_works(home: &mut Home) {
    let client = work(home);
    assert_eq!(home.kill(Role::Engine), 1);
    client_ends(client, "the engine's death");
    home.assert_gone(DEVICES);
    all_is_well(home, "the engine's death");
}

/// A VM that has lost a device is ended, or goes on with a new one where its engine can: see ADR 16.
fn each_device_dies_while_the_container_works(home: &mut Home) {
    for role in DEVICES {
        let after = format!("the death of {role:?}");
        let client = work(home);
        let before = home.wait_for(Role::Engine, Duration::ZERO);
        let ours = home.info()["engine"] == "crosvm";
        assert!(home.kill(*role) > 0, "{after}: there is none");
        if ours {
            goes_on(home, client, *role);
            assert_eq!(home.wait_for(Role::Engine, Duration::ZERO), before);
            all_is_well(home, &after);
            continue;
        }
        client_ends(client, &after);
        home.assert_gone(&[Role::Engine]);
        home.assert_gone(DEVICES);
        let info = home.info();
        assert_eq!(info["state"], "stopped", "after {after}: {info}");
        assert!(
            info["last_end"].as_str().is_some_and(|why| !why.is_empty()),
            "after {after} nobody says why: {info}"
        );
        all_is_well(home, &after);
    }
}

/// Asserts that the container works on after the death of `role`, and that what was connected through it is told.
fn goes_on(home: &Home, mut client: Child, role: Role) {
    let after = format!("the death of {role:?}");
    if role == Role::Device("vsock") {
        client_ends(client, &after);
    } else {
        // A write that a dead daemon had taken is done by the next, or this never ends.
        let line = "date > ~/after; sync; cat ~/kept";
        assert_eq!(home.shell(line).ok().text(), "kept", "{after}");
        let works = client.try_wait().expect("it is our child").is_none();
        assert!(works, "{after} ended a command");
        client.kill().expect("it runs");
        client.wait().expect("it is our child");
    }
    home.vm_reaches_its_gateway();
}

fn the_agent_dies_while_the_container_works(home: &mut Home) {
    let mut client = work(home);
    let boot = "cat /proc/sys/kernel/random/boot_id";
    let before = home.vm_shell(boot).ok().text();
    // The shell that says so is no child of the agent's any more when its own end is told.
    let _ = home.vm_shell("killall -KILL maitred-agent").ok();
    assert_eq!(home.shell("cat ~/kept").ok().text(), "kept");
    let after = home.vm_shell(boot).ok().text();
    assert_eq!(after, before, "the VM did not go on");
    let works = client.try_wait().expect("it is our child").is_none();
    assert!(works, "a command does not need the agent to go on");
    client.kill().expect("it runs");
    client.wait().expect("it is our child");
    all_is_well(home, "the agent's death");
}

fn everything_dies_at_once(home: &mut Home) {
    let mut client = work(home);
    home.kill_everything();
    client.wait().expect("it is our child");
    all_is_well(home, "the death of everything");
}

fn two_starts_at_once_start_one_vm(home: &mut Home) {
    let _ = stages(home);
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
