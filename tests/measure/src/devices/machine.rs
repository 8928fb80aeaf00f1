//! The guest's machine on the host: QEMU with the board that our own engine gives Termina, Termina's kernel, and one device
//! under test; and the daemons beside it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use spec::device::{DeviceMessage, DeviceSpec, VhostSocket};
use spec::fd::InheritedFd;

/// How long a peer may take until its socket is there.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns what `cargo xtask bench vmm` put under `name`: `crosvm`, `vhost-device-vsock`, `vmlinux`, `guest.erofs`.
pub(crate) fn part(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("TESTUDO_BENCH_PARTS").context("run `cargo xtask bench vmm`")?;
    Ok(PathBuf::from(folder).join(name))
}

/// A program that ends with its owner.
#[derive(Debug)]
pub(crate) struct Program(Child);

impl Program {
    /// Starts `command` with `descriptors`.
    pub(crate) fn start(command: &mut Command, descriptors: Vec<OwnedFd>) -> Result<Self> {
        command.stdin(Stdio::null());
        sys::spawn::tie(command, descriptors);
        Ok(Self(command.spawn().context("cannot start a program")?))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped_already = self.0.wait();
    }
}

/// Starts one of our daemons, which works on `descriptors`.
pub(crate) fn daemon(
    device: DeviceSpec,
    mut descriptors: Vec<OwnedFd>,
    socket: OwnedFd,
    listening: bool,
) -> Result<Program> {
    let (reader, mut writer) = std::io::pipe()?;
    let number = InheritedFd(socket.as_raw_fd());
    let vhost = if listening {
        VhostSocket::Listening(number)
    } else {
        VhostSocket::Connected(number)
    };
    let mut command = Command::new(part("crosvm")?);
    command
        .args(["device", device.kind(), "--spec-fd"])
        .arg(reader.as_raw_fd().to_string());
    descriptors.extend([socket, reader.into()]);
    let program = Program::start(&mut command, descriptors)?;
    writer.write_all(&serde_json::to_vec(&DeviceMessage { vhost, device })?)?;
    Ok(program)
}

/// Returns a pair of connected sockets: one for QEMU, one for a daemon.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let (one, other) = UnixStream::pair()?;
    Ok((one.into(), other.into()))
}

/// Returns a listening socket.
pub(crate) fn listen(path: &Path) -> Result<UnixListener> {
    UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))
}

/// Waits until a program has made its socket.
pub(crate) fn wait_for(path: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        if Instant::now() > deadline {
            bail!("{} does not appear", path.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// QEMU, which runs the guest.
#[derive(Debug)]
pub(crate) struct Machine {
    child: Child,
    console: BufReader<ChildStdout>,
}

impl Machine {
    /// Starts a guest with `job` and the device that `arguments` describe.
    pub(crate) fn start(job: &str, arguments: &[&str], descriptors: Vec<OwnedFd>) -> Result<Self> {
        let mut qemu = Command::new("qemu-system-x86_64");
        let disk = format!(
            "driver=file,node-name=root,filename={},read-only=on",
            part("guest.erofs")?.display()
        );
        let line = format!(
            "root=/dev/vda ro rootfstype=erofs init=/init console=hvc0 quiet reboot=t panic=-1 bench.job={job}"
        );
        qemu.args([
            "-M",
            "microvm,acpi=off,isa-serial=off,x-option-roms=off,memory-backend=memory",
        ])
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "512",
        ])
        .args([
            "-object",
            "memory-backend-memfd,id=memory,size=512M,share=on",
        ])
        .args(["-global", "virtio-mmio.force-legacy=false"])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ])
        .args(["-chardev", "stdio,id=console"])
        .args([
            "-device",
            "virtio-serial-device",
            "-device",
            "virtconsole,chardev=console",
        ])
        .arg("-kernel")
        .arg(part("vmlinux")?)
        .args(["-append", &line])
        // First, so that it is /dev/vda.
        .args([
            "-blockdev",
            &disk,
            "-device",
            "virtio-blk-device,drive=root",
        ])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
        sys::spawn::tie(&mut qemu, descriptors);
        let mut child = qemu.spawn().context("cannot start qemu-system-x86_64")?;
        let console = child.stdout.take().context("QEMU has no console")?;
        Ok(Self {
            child,
            console: BufReader::new(console),
        })
    }

    /// Returns the next line that the guest's program prints, and nothing at the guest's end.
    pub(crate) fn line(&mut self) -> Result<Option<String>> {
        loop {
            let mut line = String::new();
            if self.console.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end().split_once("bench: ") {
                Some((_, said)) if said.starts_with("failed") => bail!("the guest {said}"),
                Some((_, said)) => return Ok(Some(said.to_owned())),
                None => {}
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// Opens the disk under test, which holds data everywhere: nothing is cheaper for being a hole.
pub(crate) fn disk(folder: &Path) -> Result<(PathBuf, File)> {
    let path = folder.join("disk");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    let block = vec![0xa5; 1 << 20];
    for _ in 0..crate::job::DISK_BYTES >> 20 {
        file.write_all(&block)?;
    }
    Ok((path, file))
}
