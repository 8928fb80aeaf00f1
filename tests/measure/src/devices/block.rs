//! Disks, on the host: the guest loads one and says when it begins and ends.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use spec::device::{BlockFormat, BlockSpec, DeviceSpec};
use spec::fd::InheritedFd;

use crate::Figures;
use crate::job::BLOCK;
use crate::machine::{Machine, Program, daemon, disk, pair, wait_for};

/// Without `config-wce=off` the guest asks qemu-storage-daemon for its cache's mode, which it does not know: it says write-through
/// and flushes nothing (strace shows no fdatasync). With it, every maker's flush is one.
const DEVICE: &str = "vhost-user-blk,chardev=block,num-queues=1,queue-size=256,config-wce=off";

pub(crate) fn ours() -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let (_, file) = disk(folder.path())?;
    let device = DeviceSpec::Block(BlockSpec {
        image: InheritedFd(file.as_raw_fd()),
        format: BlockFormat::Raw,
        backing: Vec::new(),
        read_only: false,
        serial: "bench".to_owned(),
        queues: 1,
    });
    let (engine, theirs) = pair()?;
    let block = daemon(device, vec![file.into()], theirs, false)?;
    let socket = format!("socket,id=block,fd={}", engine.as_raw_fd());
    run(
        &["-chardev", &socket, "-device", DEVICE],
        vec![engine],
        Some(block),
    )
}

pub(crate) fn storage_daemon() -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let (path, _) = disk(folder.path())?;
    let vhost = folder.path().join("vhost");
    let mut command = Command::new("qemu-storage-daemon");
    command
        .arg("--blockdev")
        .arg(format!(
            "driver=file,node-name=disk,filename={},discard=unmap",
            path.display()
        ))
        .arg("--export")
        .arg(format!(
            "vhost-user-blk,id=disk,node-name=disk,writable=on,addr.type=unix,addr.path={}",
            vhost.display()
        ));
    let peer = Program::start(&mut command, Vec::new())?;
    wait_for(&vhost)?;
    let socket = format!("socket,id=block,path={}", vhost.display());
    run(
        &["-chardev", &socket, "-device", DEVICE],
        Vec::new(),
        Some(peer),
    )
}

pub(crate) fn qemu() -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let (path, _) = disk(folder.path())?;
    let node = format!(
        "driver=file,node-name=disk,filename={},discard=unmap",
        path.display()
    );
    let device = "virtio-blk-device,drive=disk,queue-size=256,num-queues=1";
    run(&["-blockdev", &node, "-device", device], Vec::new(), None)
}

fn run(arguments: &[&str], descriptors: Vec<OwnedFd>, beside: Option<Program>) -> Result<Figures> {
    let mut machine = Machine::start("block", arguments, descriptors)?;
    let mut figures = Figures::new();
    for (name, ..) in BLOCK {
        let started = machine.line()?.context("the guest has ended")?;
        let start = Instant::now();
        let stopped = machine.line()?.context("the guest has ended")?;
        let seconds = start.elapsed().as_secs_f64();
        let done = stopped.strip_prefix(&format!("stop {name} "));
        let (true, Some(done)) = (started == format!("start {name}"), done) else {
            bail!("the guest says {started:?} and {stopped:?}");
        };
        figures.insert(name, done.parse::<f64>()? / seconds);
    }
    drop(beside);
    Ok(figures)
}
