//! What the engine and its daemons cost: numbers that do not move with the machine, printed, and held against their
//! budgets. Needs root: a jailed process lets nobody else look at its memory.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use lab::daemon::Daemon;
use lab::shell::{DISK, Guest, disk, scratch};
use spec::device::{DeviceSpec, MacAddress, NetBackend, NetSpec, VsockSpec};
use spec::fd::InheritedFd;
use spec::vm::Function;

/// Issue 3: the monitor, and the monitor with its daemons.
const MONITOR_KIB: u64 = 5 * 1024;
const TREE_KIB: u64 = 25 * 1024;

/// Guest memory is mapped in one piece of this size by everybody who has it.
const GUEST_KIB: u64 = 512 * 1024;

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// Returns the proportional share of memory of `process` and of all below it, without guest memory.
fn share_kib(process: u32) -> u64 {
    let children = format!("/proc/{process}/task/{process}/children");
    let children = std::fs::read_to_string(children).unwrap();
    let below: u64 = children
        .split_whitespace()
        .map(|child| share_kib(child.parse().unwrap()))
        .sum();
    own_share_kib(process) + below
}

fn own_share_kib(process: u32) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let (mut size, mut total) = (0, 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (key, value) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        match key {
            "Size:" => size = value.parse().unwrap(),
            "Pss:" if size != GUEST_KIB => total += value.parse::<u64>().unwrap(),
            _ => {}
        }
    }
    total
}

#[test]
fn the_machine_and_its_daemons_stay_within_their_memory() {
    let folder = tempfile::tempdir().unwrap();
    let listener = OwnedFd::from(UnixListener::bind(folder.path().join("vsock.sock")).unwrap());
    let directory = OwnedFd::from(File::open(folder.path()).unwrap());
    let (cable, _other_end) = UnixStream::pair().unwrap();
    let cable = OwnedFd::from(cable);
    let vsock = DeviceSpec::Vsock(VsockSpec {
        listener: InheritedFd(listener.as_raw_fd()),
        directory: InheritedFd(directory.as_raw_fd()),
        guest_cid: 3,
    });
    let net = DeviceSpec::Net(NetSpec {
        backend: NetBackend::Stream(InheritedFd(cable.as_raw_fd())),
        mac: MAC,
        mtu: None,
    });
    let (data, data_socket) = disk(scratch(), false);
    let (vsock, vsock_socket) = Daemon::start(vsock, vec![listener, directory]);
    let (net, net_socket) = Daemon::start(net, vec![cable]);
    let (rng, rng_socket) = Daemon::start(DeviceSpec::Rng, Vec::new());
    let mut guest = Guest::start(|plan| {
        plan.device("data", DISK, data_socket)
            .device("vsock", Function::Vsock {}, vsock_socket)
            .device("net", card(), net_socket)
            .device("rng", Function::Rng {}, rng_socket)
    });
    guest.does("dd if=/dev/urandom of=/dev/vdb bs=64k count=64 conv=fsync");
    let info = guest.engine.info();
    let monitor = share_kib(guest.engine.process());
    let daemons: Vec<u64> = [guest.root(), &data, &vsock, &net, &rng]
        .map(|daemon| share_kib(daemon.process()))
        .to_vec();
    let tree = monitor + daemons.iter().sum::<u64>();
    println!("the daemons of root, data, vsock, net and rng: {daemons:?} KiB; {info:?}");
    lab::figures(&[
        ("monitor_mib", monitor as f64 / 1024.0),
        ("tree_mib", tree as f64 / 1024.0),
    ]);
    assert!(monitor <= MONITOR_KIB, "{monitor} KiB");
    assert!(tree <= TREE_KIB, "{tree} KiB");
    assert!(info.exits.total() <= 2000, "{info:?}");
}

fn card() -> Function {
    Function::Net {
        queue_pairs: 1,
        mac: MAC,
    }
}
