//! Windows with a script in place of the host end: who listens when, and what becomes of old ones.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::*;

/// Says what it hears, and asks a question after each grant; told to leave, it stays for one more order, as the real one does while it has programs.
const HOST_END: &str = r#"#!/bin/bash
read -r spec < "/proc/self/fd/$2"
echo "told $spec" >&2
control=${spec#*\"control\":}
control=${control%%[!0-9]*}
eval "exec 3<&$control"
question='{"ask":3,"direction":"to-guest","mime":"text/plain\u001b"}'
while read -r line <&3; do echo "heard $line" >&2; [[ $line = *grant* ]] && echo "$question" >&3; [ "$line" = '"leave"' ] && leaving=1; [ "$leaving" = 1 ] && [ "$line" != '"leave"' ] && break; done
echo left >&2
"#;

struct Bench {
    folder: tempfile::TempDir,
    log: Log,
    tasks: JoinSet<()>,
    windows: Windows,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("host-end");
    std::fs::write(&program, HOST_END).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let log = Log::open(folder.path().join("vm.log"));
    let setting = Setting {
        vm: VmName::termina(),
        program,
        vsock: folder.path().join("vsock.sock"),
        folder: folder.path().join("display"),
        policy: Policy::default(),
        log: log.clone(),
    };
    let mut tasks = JoinSet::new();
    let windows = Windows::new(setting, &mut tasks);
    Bench {
        folder,
        log,
        tasks,
        windows,
    }
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for a line of the log that holds `text`.
    async fn line(&self, text: &str) -> String {
        let mut changes = self.log.changes();
        loop {
            if let Some(line) = self.log.tail().into_iter().find(|line| line.contains(text)) {
                return line;
            }
            changes.changed().await.unwrap();
        }
    }

    fn is_served(&self) -> bool {
        UnixStream::connect(self.path("vsock.sock_7781")).is_ok()
    }
}

#[tokio::test]
async fn nobody_listens_before_there_is_an_offer() {
    let bench = bench();
    assert!(!bench.is_served());
    let _compositor = UnixListener::bind(bench.path("wayland-1")).unwrap();
    bench
        .windows
        .show_on(&bench.path("wayland-1"))
        .await
        .unwrap();
    assert!(bench.is_served());
    let told = bench.line("told").await;
    assert!(
        told.contains("\"vm\":\"termina\"") && told.contains("\"direct\":false"),
        "{told}"
    );
    assert!(bench.path("display/1/wayland").exists());
}

#[tokio::test]
async fn only_a_socket_of_this_user_is_a_compositor() {
    let bench = bench();
    std::fs::write(bench.path("file"), "").unwrap();
    for wrong in [
        bench.path("file"),
        bench.path("missing"),
        PathBuf::from("wayland-1"),
    ] {
        let fault = bench.windows.show_on(&wrong).await.unwrap_err();
        assert_eq!(fault.parts().code, "E-COMPOSITOR", "{}", wrong.display());
    }
    assert!(!bench.is_served());
}

#[tokio::test]
async fn another_compositor_gets_a_host_end_of_its_own_and_the_old_one_is_let_go() {
    let bench = bench();
    let _compositors = ["one", "two"].map(|name| UnixListener::bind(bench.path(name)).unwrap());
    bench.windows.show_on(&bench.path("one")).await.unwrap();
    let first = bench.windows.pids();
    bench.windows.show_on(&bench.path("one")).await.unwrap();
    assert_eq!(bench.windows.pids(), first);
    bench.line("told").await;
    bench.windows.show_on(&bench.path("two")).await.unwrap();
    assert_ne!(bench.windows.pids(), first);
    bench.line("heard \"leave\"").await;
    // One that leaves still hears what its programs may do.
    let modes = Modes {
        to_host: spec::windows::Mode::Off,
        ..Modes::default()
    };
    bench.windows.set_modes(modes);
    bench.line("left").await;
    let heard = |line: &String| line.contains("heard {\"modes\"");
    let mut changes = bench.log.changes();
    while bench.log.tail().iter().filter(|line| heard(line)).count() < 2 {
        changes.changed().await.unwrap();
    }
    assert!(bench.is_served());
}

#[tokio::test]
async fn questions_reach_who_listens_and_get_a_no_when_nobody_does() {
    let bench = bench();
    let _compositor = UnixListener::bind(bench.path("one")).unwrap();
    bench.windows.show_on(&bench.path("one")).await.unwrap();
    bench.windows.grant(Direction::ToHost).await.unwrap();
    bench.line("heard {\"grant\":\"to-host\"}").await;
    bench
        .line("heard {\"answer\":{\"ask\":3,\"allow\":false}}")
        .await;
    let mut questions = bench.windows.questions();
    bench.windows.grant(Direction::ToGuest).await.unwrap();
    let asked = questions.recv().await.unwrap();
    assert_eq!(asked.direction, Direction::ToGuest);
    assert_eq!(asked.mime, "text/plain", "a terminal would obey the rest");
    bench.windows.answer(asked.id, true).await.unwrap();
    bench
        .line("heard {\"answer\":{\"ask\":3,\"allow\":true}}")
        .await;
}

#[tokio::test]
async fn a_killed_host_end_is_replaced_and_everything_goes_with_the_task() {
    let mut bench = bench();
    let _compositor = UnixListener::bind(bench.path("one")).unwrap();
    bench.windows.show_on(&bench.path("one")).await.unwrap();
    let first = bench.windows.pids()[0];
    let pid = rustix::process::Pid::from_raw(first.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    bench.line("windows are gone").await;
    let mut pids = bench.windows.pids.clone();
    let again = pids
        .wait_for(|pids| pids.first().is_some_and(|pid| *pid != first))
        .await;
    assert_eq!(again.unwrap().len(), 1);
    assert!(bench.is_served());
    bench.tasks.shutdown().await;
    assert!(!bench.path("display/2").exists());
}
