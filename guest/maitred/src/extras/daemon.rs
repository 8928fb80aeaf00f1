//! Incus's daemon: started with the image laid over `/usr` in a mount namespace of its own, its state on the data
//! disk.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Pid, PidfdFlags, pidfd_open, setsid};
use sys::process::{Forked, fork, own_mounts};
use wire::{Fault, Kind};

use super::IMAGE;
use crate::fault::OrFault;
use crate::{PATH, log};

/// The daemon's directory, and what it is on the disk. Both names are fixed in the client.
const STATE: &str = "/var/lib/incus";
const DISK: &str = "/data/incus/state";
const SOCKET: &str = "/var/lib/incus/unix.socket";

/// Instances are subvolumes below it.
const POOL: &str = "/data/incus/pool";

/// Says that pool, bridge and profile have been made.
const PREPARED: &str = "/data/incus/prepared";

const LOG: &str = "/run/testudo/incus.log";
const PID: &str = "/run/testudo/incus.pid";

/// The daemon took 6 s on the slowest machine that we measured; a first start does more.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const READY_PAUSE: Duration = Duration::from_millis(100);

/// It answers this question when it has started, and at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a good answer begins with.
const OK: &[u8; 12] = b"HTTP/1.0 200";

const LOG_LINES: usize = 10;

/// The signal at which it stops its instances and ends (incusd(1)).
const SIGPWR: i32 = 30;

/// What `incus launch` needs: one pool, one bridge with addresses that the VM's own networks leave free.
const PRESEED: &str = "\
networks:
- name: incusbr0
  type: bridge
  config: {ipv4.address: 100.115.94.1/24, ipv4.nat: 'true', ipv6.address: 'fd74:6573:7475:696e::1/64', ipv6.nat: 'true'}
storage_pools:
- name: default
  driver: btrfs
  config: {source: /data/incus/pool}
profiles:
- name: default
  devices:
    root: {path: /, pool: default, type: disk}
    eth0: {name: eth0, network: incusbr0, type: nic}
";

/// Whether a daemon takes calls.
pub(super) fn answers() -> bool {
    UnixStream::connect(SOCKET).is_ok()
}

/// Starts the daemon from `image` and waits until it is ready.
pub(super) fn start(image: &Path) -> Result<(), Fault> {
    let message = || "cannot start Incus".to_owned();
    attach(image).or_fault("E-EXTRAS", message)?;
    launch().or_fault("E-EXTRAS", message)?;
    let deadline = Instant::now() + READY_TIMEOUT;
    while !is_ready() {
        if Instant::now() > deadline {
            let fault = Fault::new(Kind::Internal, "E-EXTRAS", message())
                .cause("its daemon did not become ready");
            return Err(log::tail(Path::new(LOG), LOG_LINES)
                .into_iter()
                .fold(fault, Fault::cause));
        }
        std::thread::sleep(READY_PAUSE);
    }
    if Path::new(PREPARED).exists() {
        return Ok(());
    }
    prepare().or_fault("E-EXTRAS", message)
}

/// Asks the daemon whether it has started everything, as its own `waitready` does.
fn is_ready() -> bool {
    let ask = || -> io::Result<bool> {
        let mut daemon = UnixStream::connect(SOCKET)?;
        daemon.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        daemon.write_all(b"GET /internal/ready HTTP/1.0\r\n\r\n")?;
        let mut answer = [0; OK.len()];
        daemon.read_exact(&mut answer)?;
        Ok(answer == *OK)
    };
    ask().unwrap_or(false)
}

/// Mounts the image and the daemon's directory; what an earlier call has mounted is kept.
fn attach(image: &Path) -> io::Result<()> {
    for directory in [IMAGE, STATE, DISK] {
        fs::create_dir_all(directory)?;
    }
    if !Path::new(IMAGE).join("usr").exists() {
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
        mount(image, IMAGE, "erofs", flags, None)?;
    }
    if !is_same(STATE, DISK)? {
        mount_bind(DISK, STATE)?;
    }
    if !Path::new(POOL).exists() {
        let above = File::open("/data/incus")?;
        sys::btrfs::create(above, "pool".as_ref())?;
    }
    Ok(())
}

fn is_same(one: &str, other: &str) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (one, other) = (fs::metadata(one)?, fs::metadata(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Leaves a daemon behind that no session's end reaches.
fn launch() -> io::Result<()> {
    let log = File::create(LOG)?;
    let Forked::Child = fork()? else {
        return Ok(());
    };
    // Whatever happens from here on, this copy does not return into the caller's work.
    let error = become_daemon(log).err();
    let mut said = File::options().append(true).open(LOG);
    if let (Some(error), Ok(said)) = (error, said.as_mut()) {
        let _ = writeln!(said, "cannot start the daemon: {error}");
    }
    // Ends this process only.
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .map_err(Into::into)
}

fn become_daemon(log: File) -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    setsid()?;
    own_mounts()?;
    let all = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    mount_change("/", all)?;
    let layers = CString::new(format!("lowerdir={IMAGE}/usr:/usr"))?;
    mount(
        "overlay",
        "/usr",
        "overlay",
        MountFlags::RDONLY,
        layers.as_c_str(),
    )?;
    fs::write(PID, rustix::process::getpid().as_raw_pid().to_string())?;
    let error = Command::new("/usr/libexec/incus/incusd")
        .args(["--group", "root"])
        .env("PATH", PATH)
        .env("HOME", "/root")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .exec();
    Err(error)
}

/// Makes pool, bridge and profile, once in the life of the data disk.
fn prepare() -> io::Result<()> {
    let mut init = program("usr/bin/incus")
        .args(["admin", "init", "--preseed"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    init.stdin
        .take()
        .expect("it was asked for")
        .write_all(PRESEED.as_bytes())?;
    let status = init.wait()?;
    if !status.success() {
        return Err(io::Error::other(format!(
            "its first set-up ended with {status}"
        )));
    }
    File::create(PREPARED)?.sync_all()
}

/// Returns a program of the image, for what needs nothing else of it.
fn program(path: &str) -> Command {
    let mut command = Command::new(Path::new(IMAGE).join(path));
    command.env("PATH", PATH).env("HOME", "/root");
    command
}

/// Stops the daemon and its instances, waiting at most `timeout`; `true` when there is none any more.
pub(crate) fn stop(timeout: Duration) -> bool {
    let number = fs::read_to_string(PID)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let pid = number.filter(|number| *number > 0).and_then(Pid::from_raw);
    let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return true;
    };
    if !answers() || sys::process::signal(&pidfd, SIGPWR).is_err() {
        return true;
    }
    let timeout = Timespec::try_from(timeout).ok();
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout.as_ref()).is_ok_and(|ready| ready > 0)
}
