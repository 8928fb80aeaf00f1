//! QEMU as an engine on the host: the one place where a [`VmSpec`] becomes an argument vector.
//!
//! The machine is `microvm`: no firmware tables, no PCI, virtio over MMIO; it reached init in 0.75 s where `q35`
//! took 1.05 s. The processor is emulated (TCG). QEMU opens no path: kernel, console, control and devices are
//! inherited descriptors, and its seccomp sandbox is on.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use spec::end::EngineEnd;
use spec::vm::{Device, Function, VmSpec};
use tokio::net::UnixStream;
use wire::{Fault, Kind};

use super::{Control, Engine, Invocation, OwnDisk, Plug, qmp};
use crate::log::Log;
use crate::network::MTU;

/// The executable's name.
const PROGRAM: &str = "qemu-system-x86_64";

/// `acpi` and `isa-serial` cost boot time and give nothing that maitred does not get from concierge; the timers
/// (`pit`, `pic`) have to stay, the kernel calibrates with them, and so has the clock (`rtc`): the kernel waits
/// 1.1 s for one that does not answer. Option ROMs only delay.
const MACHINE: &str = "microvm,acpi=off,isa-serial=off,x-option-roms=off,memory-backend=memory";

/// Without ACPI a guest ends by resetting, which `-no-reboot` turns into an exit; a panic does the same.
const KERNEL_ARGUMENTS: &str = "reboot=t panic=-1";

/// The descriptor set of the console; those of disks follow.
const CONSOLE_SET: usize = 1;
const FIRST_DISK_SET: usize = CONSOLE_SET + 1;

/// Everything that QEMU's filter can deny.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// The guest's kernel then need not find out the speed of its timers, which takes it 300 ms: QEMU's local APIC
/// timer runs at 1 GHz (our kernel patch reads `lapic_timer_khz`), and its time stamp counter is the host's.
const TIMERS: &str = "lapic_timer_khz=1000000 tsc=reliable tsc_early_khz=";

/// QEMU with its emulated processor.
#[derive(Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
}

/// The host's time stamp counter, measured once, beside the daemon's other beginnings.
static TSC_KHZ: OnceLock<Option<u32>> = OnceLock::new();

/// Measures what the first start will need, on a thread of its own.
pub(crate) fn prepare() {
    std::thread::spawn(|| TSC_KHZ.get_or_init(sys::tsc::frequency_khz));
}

impl Qemu {
    /// Finds QEMU in `PATH`.
    ///
    /// # Errors
    /// When it is not installed.
    pub(crate) fn find() -> Result<Self, Fault> {
        match crate::programs::find(PROGRAM) {
            Some(program) => Ok(Self { program }),
            None => Err(Fault::new(
                Kind::NotFound,
                "E-QEMU-MISSING",
                format!("{PROGRAM} is not installed"),
            )
            .hint("install it, on Debian: sudo apt-get install qemu-system-x86")),
        }
    }
}

impl Engine for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    /// A connected pair, except for network cards: QEMU 7.2 takes those only from a socket that it connected
    /// itself. There our end is the listening socket's place in the file system, opened as a mere name, so that
    /// QEMU still needs no path of ours.
    fn plug(&self, function: &Function, path: &Path) -> io::Result<Plug> {
        if !matches!(function, Function::Net { .. }) {
            let (engine, daemon) = StdUnixStream::pair()?;
            return Ok(Plug {
                engine: engine.into(),
                daemon: daemon.into(),
                listening: false,
            });
        }
        let listener = UnixListener::bind(path)?;
        let name = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        std::fs::remove_file(path)?;
        Ok(Plug {
            engine: name,
            daemon: OwnedFd::from(listener),
            listening: true,
        })
    }

    /// QEMU 7.2 learns of a vhost-user disk's new size only by a message that the daemon's library cannot send.
    fn serves_growing_disks(&self) -> bool {
        true
    }

    fn invocation(&self, spec: &VmSpec, own_disks: &[OwnDisk]) -> io::Result<Invocation> {
        Ok(Invocation {
            program: self.program.clone(),
            arguments: arguments(spec, own_disks)?,
            descriptors: Vec::new(),
        })
    }

    /// QEMU 7.2 neither reconnects to a daemon on a socket that it was given, nor saves a machine with any.
    fn takes_new_daemons(&self) -> bool {
        false
    }

    /// QEMU's exit codes tell nothing apart.
    fn end(&self, _: ExitStatus) -> Option<EngineEnd> {
        None
    }

    fn control(&self, stream: UnixStream, log: Log) -> Box<dyn Control> {
        Box::new(qmp::Qmp::start(stream, log))
    }
}

fn arguments(spec: &VmSpec, own_disks: &[OwnDisk]) -> io::Result<Vec<String>> {
    let memory = spec.memory.0;
    let mut arguments = Arguments::default();
    arguments
        .push(
            "-name",
            format!("testudo-{},process=testudo-{}", spec.name, spec.name),
        )
        .push("-machine", MACHINE)
        .push("-accel", "tcg,thread=multi")
        .push("-cpu", "max")
        .push("-smp", spec.vcpus.to_string())
        .push("-m", memory.to_string())
        .push(
            "-object",
            format!("memory-backend-memfd,id=memory,size={memory}M,share=on"),
        )
        // vhost-user daemons speak virtio 1 only, virtio-mmio's default is older.
        .push("-global", "virtio-mmio.force-legacy=false")
        .flag("-nodefaults")
        .flag("-no-user-config")
        .flag("-no-reboot")
        .push("-display", "none")
        .push("-sandbox", SANDBOX)
        .push("-kernel", format!("/proc/self/fd/{}", spec.kernel.image))
        .push("-append", kernel_arguments(&spec.kernel.cmdline));
    if let Some(initramfs) = spec.kernel.initramfs {
        arguments.push("-initrd", format!("/proc/self/fd/{initramfs}"));
    }
    arguments
        .push("-chardev", format!("socket,id=control,fd={}", spec.control))
        .push("-mon", "chardev=control,mode=control")
        .push(
            "-add-fd",
            format!("fd={},set={CONSOLE_SET}", spec.console.output),
        )
        .push(
            "-chardev",
            format!("file,id=console,path=/dev/fdset/{CONSOLE_SET},append=on"),
        )
        .push("-device", "virtio-serial-device")
        .push("-device", "virtconsole,chardev=console");
    for device in &spec.devices {
        add_device(&mut arguments, device)?;
    }
    if spec.options.give_back {
        // Punches holes into the memory file where the guest's pages are free; the balloon itself is never filled.
        arguments.push("-device", "virtio-balloon-device,free-page-reporting=on");
    }
    for (number, disk) in own_disks.iter().enumerate() {
        add_own_disk(&mut arguments, disk, FIRST_DISK_SET + number);
    }
    Ok(arguments.0)
}

fn kernel_arguments(cmdline: &str) -> String {
    let mut arguments = format!("{cmdline} {KERNEL_ARGUMENTS}");
    if let Some(khz) = TSC_KHZ.get_or_init(sys::tsc::frequency_khz) {
        arguments.push_str(&format!(" {TIMERS}{khz}"));
    }
    arguments
}

/// Locks are concierge's business (`disk::Folder::lock`); what the guest discards is free on the host. A host without
/// space is told to the guest, whose file system then stops writing: QEMU's own way, to halt the machine without a word,
/// looks to its user like a hang.
fn add_own_disk(arguments: &mut Arguments, disk: &OwnDisk, set: usize) {
    let OwnDisk { name, image } = disk;
    arguments
        .push("-add-fd", format!("fd={image},set={set}"))
        .push(
            "-blockdev",
            format!(
                "driver=file,node-name={name},filename=/dev/fdset/{set},locking=off,discard=unmap"
            ),
        )
        .push(
            "-device",
            format!("virtio-blk-device,drive={name},serial={name},werror=report,rerror=report"),
        );
}

fn add_device(arguments: &mut Arguments, device: &Device) -> io::Result<()> {
    let id = &device.name;
    let socket = device.socket;
    let size = device.queue_size;
    let front = match &device.function {
        Function::Block { queues } => {
            format!("vhost-user-blk,chardev={id},num-queues={queues},queue-size={size}")
        }
        Function::Net { queue_pairs, mac } => {
            arguments
                .push(
                    "-chardev",
                    format!("socket,id={id},path=/proc/self/fd/{socket}"),
                )
                .push(
                    "-netdev",
                    format!("vhost-user,id={id}-card,chardev={id},queues={queue_pairs}"),
                );
            let mac = String::from(*mac);
            arguments.push(
                "-device",
                format!("virtio-net-device,netdev={id}-card,mac={mac},rx_queue_size={size},host_mtu={MTU}"),
            );
            return Ok(());
        }
        Function::Vsock {} => format!("vhost-user-vsock-device,chardev={id}"),
        Function::Fs { tag, queues } => {
            format!("vhost-user-fs-device,chardev={id},tag={tag},num-request-queues={queues}")
        }
        Function::Rng {} => format!("vhost-user-rng,chardev={id}"),
        Function::Sound {} | Function::Gpu {} | Function::Input {} => {
            let message = format!("QEMU cannot attach device {id} to a microvm");
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
    };
    arguments
        .push("-chardev", format!("socket,id={id},fd={socket}"))
        .push("-device", front);
    Ok(())
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.to_owned());
        self
    }

    fn push(&mut self, option: &str, value: impl Into<String>) -> &mut Self {
        self.0.extend([option.to_owned(), value.into()]);
        self
    }
}
