//! How long a boot takes beside another monitor: the same kernel and root, one processor, from the start of the first process
//! to the shell's prompt. Measures for `cargo xtask bench vmm`, which holds the figures against their goal.
//!
//! The other is QEMU on the same KVM, with the board and the options that its manual gives for the fastest boot, and the
//! disk in its own process, where no daemon has to be started.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::place;
use lab::shell::Guest;

/// The median of so many counts.
const ROUNDS: usize = 5;

/// What our own monitor tells its kernel.
const LINE: &str = "quiet root=/dev/vda ro rootfstype=erofs init=/bin/sh \
    console=hvc0 tsc=reliable no_timer_check panic=-1";

/// Where the lab has what it only measures against.
const QEMU: &str = "/peers/qemu-system-x86_64";
const FIRMWARE: &str = "/usr/share/qemu";

const PROMPT: &[u8] = b"# ";

fn ours() -> Duration {
    let start = Instant::now();
    let guest = Guest::launch(|plan| plan);
    guest.engine.expect("# ");
    start.elapsed()
}

fn qemu() -> Duration {
    let drive = format!(
        "driver=file,node-name=root,filename={},read-only=on",
        place::image("root.erofs").display()
    );
    let start = Instant::now();
    let mut command = Command::new(QEMU);
    command
        .args(["-L", FIRMWARE])
        .args([
            "-M",
            "microvm,acpi=off,isa-serial=off,x-option-roms=off,pit=off,pic=off,rtc=off",
        ])
        .args(["-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", "512"])
        .args(["-global", "virtio-mmio.force-legacy=false"])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ])
        .args(["-chardev", "stdio,id=console"])
        .args(["-device", "virtio-serial-device"])
        .args(["-device", "virtconsole,chardev=console"])
        .arg("-kernel")
        .arg(place::image("vmlinux"))
        .args(["-append", LINE])
        .args(["-blockdev", &drive])
        .args(["-device", "virtio-blk-device,drive=root"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut console = child.stdout.take().unwrap();
    let (mut seen, mut bytes) = (Vec::new(), [0; 4096]);
    while !seen.windows(PROMPT.len()).any(|window| window == PROMPT) {
        let count = console.read(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&seen);
        assert!(count > 0, "QEMU ended without a prompt: {text}");
        seen.extend_from_slice(&bytes[..count]);
    }
    let elapsed = start.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    elapsed
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

#[test]
fn a_boot_takes_so_long() {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Who comes first is not always the same.
        if round % 2 == 0 {
            one.push(ours());
            other.push(qemu());
        } else {
            other.push(qemu());
            one.push(ours());
        }
    }
    println!("ours {one:.2?}, QEMU's {other:.2?}");
    lab::figures(&[("boot_s", median(one)), ("boot_qemu_s", median(other))]);
}
