//! Network cards and vsock devices, on the host: the guest connects to here, and bytes go both ways.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use spec::device::{DeviceSpec, MacAddress, NetBackend, NetSpec, VsockSpec};
use spec::fd::InheritedFd;

use crate::Figures;
use crate::job::{self, JOBS, PORT, ROUND_TRIPS, SERVER};
use crate::machine::{Machine, Program, daemon, listen, pair, part, wait_for};

/// A whole case: boot, three jobs, and the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(120);

const MEGA: f64 = 1e6;

/// The guest's context identifier.
const CID: u32 = 42;

const MAC: &str = "52:54:00:74:73:02";

/// The card, with what our engine gives it.
const CARD: &str =
    "virtio-net-device,netdev=card,mac=52:54:00:74:73:02,rx_queue_size=256,host_mtu=65520";

pub(crate) fn net_ours() -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("net.vhost");
    let (passt, stream) = passt()?;
    let device = DeviceSpec::Net(NetSpec {
        backend: NetBackend::Stream(InheritedFd(stream.as_raw_fd())),
        mac: MacAddress::try_from(MAC.to_owned())?,
        mtu: Some(65520),
    });
    let listener = listen(&path)?;
    let net = daemon(device, vec![stream], listener.into(), true)?;
    let socket = format!("socket,id=net,path={}", path.display());
    let arguments = [
        "-chardev",
        &socket,
        "-netdev",
        "vhost-user,id=card,chardev=net",
        "-device",
        CARD,
    ];
    tcp(&arguments, Vec::new(), vec![passt, net])
}

pub(crate) fn net_qemu_stream() -> Result<Figures> {
    let (passt, stream) = passt()?;
    let netdev = format!(
        "stream,id=card,server=off,addr.type=fd,addr.str={}",
        stream.as_raw_fd()
    );
    tcp(
        &["-netdev", &netdev, "-device", CARD],
        vec![stream],
        vec![passt],
    )
}

pub(crate) fn net_qemu_user() -> Result<Figures> {
    let netdev = "user,id=card,net=100.115.92.0/24,host=100.115.92.1,dhcpstart=100.115.92.2";
    tcp(
        &["-netdev", netdev, "-device", CARD],
        Vec::new(),
        Vec::new(),
    )
}

/// Starts passt as concierge does.
fn passt() -> Result<(Program, OwnedFd)> {
    let (theirs, ours) = pair()?;
    // passt drops what its socket does not take at once, and TCP waits for seconds then.
    for end in [&ours, &theirs] {
        rustix::net::sockopt::set_socket_send_buffer_size(end, 4 << 20)?;
    }
    let mut command = Command::new("passt");
    command
        .args(["--foreground", "--quiet", "--stderr", "--fd"])
        .arg(theirs.as_raw_fd().to_string())
        .args([
            "--interface",
            "lo",
            "--no-map-gw",
            "--tcp-ports",
            "none",
            "--udp-ports",
            "none",
        ])
        .args([
            "--no-dhcp",
            "--no-dhcpv6",
            "--no-ra",
            "--mac-addr",
            "52:54:00:74:73:01",
        ])
        .args([
            "--address",
            "100.115.92.2",
            "--netmask",
            "24",
            "--gateway",
            "100.115.92.1",
        ]);
    Ok((Program::start(&mut command, vec![theirs])?, ours))
}

fn tcp(arguments: &[&str], descriptors: Vec<OwnedFd>, beside: Vec<Program>) -> Result<Figures> {
    let listener =
        TcpListener::bind((SERVER, PORT)).context("cannot listen: is the network there?")?;
    let (finished, figures) = channel();
    std::thread::spawn(move || {
        for _ in JOBS {
            let figure = listener
                .accept()
                .map_err(Into::into)
                .and_then(|(stream, _)| {
                    stream.set_nodelay(true)?;
                    serve(stream)
                });
            if finished.send(figure).is_err() {
                return;
            }
        }
    });
    let machine = Machine::start("net", arguments, descriptors)?;
    let result = collect(&figures, machine);
    drop(beside);
    result
}

pub(crate) fn vsock_ours() -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let listener: OwnedFd = listen(&folder.path().join("vsock.sock"))?.into();
    let service = listen(&folder.path().join(format!("vsock.sock_{PORT}")))?;
    let directory: OwnedFd = std::fs::File::open(folder.path())?.into();
    let device = DeviceSpec::Vsock(VsockSpec {
        listener: InheritedFd(listener.as_raw_fd()),
        directory: InheritedFd(directory.as_raw_fd()),
        guest_cid: CID,
    });
    let (engine, theirs) = pair()?;
    let vsock = daemon(device, vec![listener, directory], theirs, false)?;
    let socket = format!("socket,id=vsock,fd={}", engine.as_raw_fd());
    let arguments = [
        "-chardev",
        &socket,
        "-device",
        "vhost-user-vsock-device,chardev=vsock",
    ];
    unix(service, &arguments, vec![engine], vsock)
}

pub(crate) fn vsock_peer() -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let (vhost, door) = (
        folder.path().join("vhost"),
        folder.path().join("vsock.sock"),
    );
    let service = listen(&folder.path().join(format!("vsock.sock_{PORT}")))?;
    let mut command = Command::new(part("vhost-device-vsock")?);
    command.arg("--vm").arg(format!(
        "guest-cid={CID},socket={},uds-path={}",
        vhost.display(),
        door.display()
    ));
    let peer = Program::start(&mut command, Vec::new())?;
    wait_for(&vhost)?;
    let socket = format!("socket,id=vsock,path={}", vhost.display());
    let arguments = [
        "-chardev",
        &socket,
        "-device",
        "vhost-user-vsock-device,chardev=vsock",
    ];
    unix(service, &arguments, Vec::new(), peer)
}

fn unix(
    listener: UnixListener,
    arguments: &[&str],
    descriptors: Vec<OwnedFd>,
    beside: Program,
) -> Result<Figures> {
    let (finished, figures) = channel();
    std::thread::spawn(move || {
        for _ in JOBS {
            let figure = listener
                .accept()
                .map_err(Into::into)
                .and_then(|(stream, _)| serve(stream));
            if finished.send(figure).is_err() {
                return;
            }
        }
    });
    let machine = Machine::start("vsock", arguments, descriptors)?;
    let result = collect(&figures, machine);
    drop(beside);
    result
}

fn collect(figures: &Receiver<Result<(&'static str, f64)>>, machine: Machine) -> Result<Figures> {
    let mut all = Figures::new();
    for _ in JOBS {
        match figures.recv_timeout(PATIENCE) {
            Ok(figure) => all.extend([figure?]),
            Err(RecvTimeoutError::Timeout) => bail!("the guest does not come"),
            Err(RecvTimeoutError::Disconnected) => bail!("the listener has ended"),
        }
    }
    drop(machine);
    Ok(all)
}

/// Does the host's half of the job that the guest asks for.
fn serve<S: Read + Write>(mut stream: S) -> Result<(&'static str, f64)> {
    let mut letter = [0];
    stream.read_exact(&mut letter)?;
    let start = Instant::now();
    let rate = |bytes: usize| bytes as f64 / start.elapsed().as_secs_f64() / MEGA;
    Ok(match letter[0] {
        b'u' => {
            let bytes = job::receive(&mut stream)?;
            let rate = rate(bytes);
            stream.write_all(b".")?;
            ("to_host_mb_s", rate)
        }
        b'd' => {
            let bytes = job::send(&mut stream)?;
            stream.read_exact(&mut letter)?;
            ("to_guest_mb_s", rate(bytes))
        }
        _ => {
            for _ in 0..ROUND_TRIPS {
                stream.write_all(&letter)?;
                stream.read_exact(&mut letter)?;
            }
            let rate = f64::from(ROUND_TRIPS) / start.elapsed().as_secs_f64();
            ("round_trips_s", rate)
        }
    })
}
