//! The daemon as a process, in temporary folders and without a guest: its beginning and its ends, and everything
//! that can be done to a VM that does not run.

#![expect(clippy::unwrap_used, reason = "in a test, a failure is the result")]

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use link::daemon::READY;
use link::places::Places;
use link::request::Tag;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::proto::daemon_client::DaemonClient;
use wire::proto::import_vm::Part;
use wire::proto::vms_client::VmsClient;
use wire::proto::{
    CreateVm, DestroyVm, Empty, ImportVm, Progress, ResizeVm, SetVm, StartVm, Vm, VmRef, VmState,
};
use wire::{Fault, proto};

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

type Client<T> = InterceptedService<T, Tag>;

/// A home of its own, and the daemons that were started in it.
struct Home {
    root: tempfile::TempDir,
}

/// A daemon; it is killed with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Daemon {
    /// Returns what it said until it let go of its standard output.
    fn said(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        let output = self.0.stdout.as_mut().unwrap();
        output.read_to_end(&mut said).unwrap();
        said
    }

    /// Waits for its end.
    fn ended(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Home {
    fn new(config: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let home = Self { root };
        std::fs::create_dir(home.root.path().join("XDG_RUNTIME_DIR")).unwrap();
        let file = home.places().config_file();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, config).unwrap();
        home
    }

    fn places(&self) -> Places {
        let path = self.root.path();
        Places::from_variables(|name| Some(path.join(name).into()), 0).unwrap()
    }

    /// Makes a guest image of 8 MiB whose kernel is no kernel.
    fn image(&self) -> PathBuf {
        let folder = self.places().user_image();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("vmlinux"), b"\x7fELF").unwrap();
        std::fs::write(folder.join("root.erofs"), [0; 4096]).unwrap();
        let template = File::create(folder.join("data.btrfs")).unwrap();
        template.set_len(8 << 20).unwrap();
        template.write_all_at(b"template", 4 << 20).unwrap();
        let outputs = ["vmlinux", "root.erofs", "data.btrfs"].map(|name| {
            let content = std::fs::read(folder.join(name)).unwrap();
            let sha256 = Sha256::digest(&content);
            let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            let bytes = content.len();
            format!(r#""{name}":{{"sha256":"{sha256}","bytes":{bytes}}}"#)
        });
        let outputs = outputs.join(",");
        let manifest = format!(r#"{{"build":"of-test","outputs":{{{outputs}}}}}"#);
        std::fs::write(folder.join("manifest.json"), manifest).unwrap();
        folder
    }

    fn daemon(&self) -> Daemon {
        let mut command = self.command(env!("CARGO_BIN_EXE_concierge"));
        let started = command.arg(link::daemon::DETACHED).spawn();
        Daemon(started.unwrap())
    }

    /// Returns a command that has only this home.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        for name in [
            "HOME",
            "XDG_RUNTIME_DIR",
            "XDG_DATA_HOME",
            "XDG_STATE_HOME",
            "XDG_CONFIG_HOME",
        ] {
            command.env(name, self.root.path().join(name));
        }
        command.env("PATH", std::env::var_os("PATH").unwrap());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command
    }

    fn ready(&self) -> Daemon {
        let mut daemon = self.daemon();
        assert_eq!(daemon.said(), READY);
        daemon
    }

    async fn vms(&self) -> VmsClient<Client<Channel>> {
        let channel = link::unix::connect(&self.places().socket()).await.unwrap();
        VmsClient::with_interceptor(channel, Tag::new())
    }

    async fn version_pid(&self) -> u32 {
        let channel = link::unix::connect(&self.places().socket()).await.unwrap();
        let mut client = DaemonClient::with_interceptor(channel, Tag::new());
        client.version(Empty {}).await.unwrap().into_inner().pid
    }
}

async fn drained(
    events: Result<tonic::Response<Streaming<Progress>>, Status>,
) -> Result<(), Fault> {
    let mut events = events?.into_inner();
    while events.message().await?.is_some() {}
    Ok(())
}

fn create(vm: &str) -> CreateVm {
    CreateVm {
        vm: vm.to_owned(),
        disk_bytes: 1 << 30,
        cpus: 1,
        memory_mib: 256,
    }
}

fn named(vm: &str) -> VmRef {
    VmRef { vm: vm.to_owned() }
}

async fn info(vms: &mut VmsClient<Client<Channel>>, vm: &str) -> Result<Vm, Fault> {
    Ok(vms.info(named(vm)).await?.into_inner())
}

#[tokio::test]
async fn two_daemons_at_once_become_one() {
    let home = Home::new("");
    let (mut one, mut two) = (home.daemon(), home.daemon());
    assert_eq!((one.said(), two.said()), (READY.to_vec(), READY.to_vec()));
    let serving = home.version_pid().await;
    let other = if one.0.id() == serving {
        &mut two
    } else {
        &mut one
    };
    assert!(other.ended().success());
    assert_eq!(home.version_pid().await, serving);
}

#[tokio::test]
async fn the_socket_is_the_users_own() {
    let home = Home::new("");
    let _daemon = home.ready();
    let mode = std::fs::metadata(home.places().socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let folder = std::fs::metadata(home.places().runtime())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(folder & 0o777, 0o700);
}

#[tokio::test]
async fn systemds_socket_is_served_and_left_alone() {
    let home = Home::new("idle_seconds = 0\n");
    home.places().prepare_runtime().unwrap();
    let socket = home.places().socket();
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let waiting = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let mut command = home.command("/bin/sh");
    // As systemd does: the listener is descriptor 3, and the process knows that it is meant.
    let script = "exec env LISTEN_PID=$$ LISTEN_FDS=1 \"$0\" 3<&0";
    command.args(["-c", script, env!("CARGO_BIN_EXE_concierge")]);
    let started = command.stdin(std::os::fd::OwnedFd::from(listener)).spawn();
    let mut daemon = Daemon(started.unwrap());
    // This client was there first, and has started it.
    waiting.set_nonblocking(true).unwrap();
    let stream = tokio::net::UnixStream::from_std(waiting).unwrap();
    let channel = link::unix::channel(stream).await.unwrap();
    let mut client = DaemonClient::with_interceptor(channel, Tag::new());
    let answer = client.version(Empty {}).await.unwrap();
    assert_eq!(answer.into_inner().pid, daemon.0.id());
    drop(client);
    assert!(daemon.ended().success());
    assert!(socket.exists(), "the next client has nowhere to knock");
}

#[test]
fn bad_settings_are_told_to_the_client() {
    let home = Home::new("cpus = 2\nnonsense = 1\n");
    let mut daemon = home.daemon();
    let fault = Fault::from(proto::Fault::decode(daemon.said().as_slice()).unwrap());
    assert_eq!(fault.parts().code, "E-CONFIG");
    assert!(
        fault.parts().causes[0].starts_with("line 2: "),
        "{:?}",
        fault.parts().causes
    );
    assert!(!daemon.ended().success());
}

#[test]
fn an_idle_daemon_ends_and_leaves_no_socket() {
    let home = Home::new("idle_seconds = 0\n");
    assert!(home.ready().ended().success());
    assert!(!home.places().socket().exists());
}

#[test]
fn a_removed_runtime_folder_is_a_logout() {
    let home = Home::new("");
    let mut daemon = home.ready();
    std::fs::remove_dir_all(home.places().runtime()).unwrap();
    assert!(daemon.ended().success());
}

#[test]
fn sigterm_ends_it() {
    let home = Home::new("");
    let mut daemon = home.ready();
    let pid = rustix::process::Pid::from_child(&daemon.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(daemon.ended().success());
}

#[tokio::test]
async fn after_a_kill_the_next_daemon_serves_and_clears_up() {
    let home = Home::new("");
    drop(home.ready());
    let stale = home.places().vm_sockets(3);
    std::fs::create_dir_all(&stale).unwrap();
    let unfinished = home.places().vms().join(".new-x");
    std::fs::create_dir_all(&unfinished).unwrap();
    let daemon = home.ready();
    assert_eq!(home.version_pid().await, daemon.0.id());
    assert!(!stale.exists() && !unfinished.exists());
}

#[tokio::test]
async fn a_client_of_another_version_is_refused() {
    let home = Home::new("");
    let _daemon = home.ready();
    let channel = link::unix::connect(&home.places().socket()).await.unwrap();
    let mut untagged = VmsClient::new(channel);
    let fault = Fault::from(untagged.list(Empty {}).await.unwrap_err());
    assert_eq!(fault.parts().code, "E-VERSION");
}

#[tokio::test]
async fn a_vm_without_an_image_says_what_is_missing() {
    let home = Home::new("");
    let _daemon = home.ready();
    let mut vms = home.vms().await;
    let start = StartVm {
        vm: "one".to_owned(),
        create: true,
        ..StartVm::default()
    };
    let fault = drained(vms.start(start).await).await.unwrap_err();
    assert_eq!(fault.parts().code, "E-IMAGE-MISSING");
    assert_eq!(fault.parts().message, "cannot start one");
    assert!(
        vms.list(Empty {})
            .await
            .unwrap()
            .into_inner()
            .vms
            .is_empty()
    );
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_refused_by_name() {
    let home = Home::new("");
    let _daemon = home.ready();
    let mut vms = home.vms().await;
    let start = StartVm {
        vm: "one".to_owned(),
        create: true,
        engine: "bochs".to_owned(),
        force_boot: false,
    };
    let fault = drained(vms.start(start).await).await.unwrap_err();
    assert_eq!(fault.parts().code, "E-ENGINE");
    assert!(fault.parts().message.contains("bochs"), "{fault}");
}

#[tokio::test]
async fn a_failed_start_names_the_stage_and_leaves_nothing_behind() {
    let home = Home::new("");
    home.image();
    let _daemon = home.ready();
    let mut vms = home.vms().await;
    drained(vms.create(create("one")).await).await.unwrap();
    for _ in 0..2 {
        let start = StartVm {
            vm: "one".to_owned(),
            create: false,
            ..StartVm::default()
        };
        let fault = drained(vms.start(start).await).await.unwrap_err();
        let cause = &fault.parts().causes[0];
        assert!(cause.starts_with("stage "), "{fault}: {cause}");
        assert_eq!(
            info(&mut vms, "one").await.unwrap().state(),
            VmState::Stopped
        );
    }
    let lock = File::open(home.places().vm(&"one".parse().unwrap()).join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let sockets = std::fs::read_dir(home.places().sockets()).unwrap().count();
    assert_eq!(sockets, 0);
}

#[tokio::test]
async fn a_stopped_vm_lives_through_everything() {
    let home = Home::new("");
    home.image();
    let _daemon = home.ready();
    let mut vms = home.vms().await;
    drained(vms.create(create("one")).await).await.unwrap();
    let again = drained(vms.create(create("one")).await).await;
    assert_eq!(again.unwrap_err().parts().code, "E-VM-EXISTS");
    let set = SetVm {
        vm: "one".to_owned(),
        cpus: Some(2),
        memory_mib: Some(512),
        ..SetVm::default()
    };
    assert!(!vms.set(set).await.unwrap().into_inner().at_next_start);
    let (vm, disk_bytes) = ("one".to_owned(), 2 << 30);
    drained(vms.resize(ResizeVm { vm, disk_bytes }).await)
        .await
        .unwrap();
    let one = info(&mut vms, "one").await.unwrap();
    assert_eq!(
        (one.cpus, one.memory_mib, one.disk_bytes),
        (2, 512, 2 << 30)
    );
    assert!(
        one.disk_host_bytes < 1 << 20,
        "{} bytes on the host",
        one.disk_host_bytes
    );

    let mut chunks = vms.export(named("one")).await.unwrap().into_inner();
    let mut file = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        file.extend(chunk.data);
    }
    drained(vms.import(parts("two", &file)).await)
        .await
        .unwrap();
    let two = info(&mut vms, "two").await.unwrap();
    assert_eq!(
        (two.cpus, two.memory_mib, two.disk_bytes),
        (2, 512, 2 << 30)
    );
    let path = home.places().vm(&"two".parse().unwrap()).join("data.btrfs");
    let mut found = [0; 8];
    OpenOptions::new()
        .read(true)
        .open(path)
        .unwrap()
        .read_exact_at(&mut found, 4 << 20)
        .unwrap();
    assert_eq!(&found, b"template");

    let cut = drained(vms.import(parts("three", &file[..file.len() / 2])).await)
        .await
        .unwrap_err();
    assert_eq!(cut.parts().code, "E-IMPORT-DAMAGED");
    for vm in ["one", "two"] {
        let destroy = DestroyVm {
            vm: vm.to_owned(),
            force: false,
        };
        vms.destroy(destroy).await.unwrap();
    }
    assert!(
        vms.list(Empty {})
            .await
            .unwrap()
            .into_inner()
            .vms
            .is_empty()
    );
    assert_eq!(std::fs::read_dir(home.places().vms()).unwrap().count(), 0);
}

fn parts(vm: &str, file: &[u8]) -> impl tokio_stream::Stream<Item = ImportVm> + Send + 'static {
    let first = ImportVm {
        part: Some(Part::Vm(named(vm))),
    };
    let data: Vec<ImportVm> = file
        .chunks(1000)
        .map(|data| ImportVm {
            part: Some(Part::Data(data.to_vec())),
        })
        .collect();
    tokio_stream::iter(std::iter::once(first).chain(data))
}

#[tokio::test]
async fn what_is_not_there_and_what_is_no_name_are_told_apart() {
    let home = Home::new("");
    let _daemon = home.ready();
    let mut vms = home.vms().await;
    assert_eq!(
        info(&mut vms, "one").await.unwrap_err().parts().code,
        "E-VM-NOTFOUND"
    );
    for name in ["", "../up", "A", "one/two"] {
        assert_eq!(
            info(&mut vms, name).await.unwrap_err().parts().code,
            "E-NAME",
            "{name:?}"
        );
    }
}
