//! The peers, in the same run: Debian's cloud kernel on the same engine, and the same container the way that LXD's successor
//! starts it, in the same VM.

use std::path::PathBuf;
use std::process::Command;

use fixture::Home;

use crate::{Figures, ROUNDS, median, say};

/// Say where Debian's kernel and the initial memory disk are that tells when init runs.
const KERNEL: &str = "TESTUDO_BENCH_KERNEL";
const INITRD: &str = "TESTUDO_BENCH_INITRD";
const MARKER: &str = "TESTUDO_BENCH_MARKER";

/// Makes the other way's container of our base, once. It is not started with the daemon: that is what is measured.
const PREPARE: &str = "set -e
incus info > /dev/null
mkdir -p /data/peer; cd /data/peer
printf 'architecture: x86_64\\ncreation_date: 1700000000\\n' > metadata.yaml
tar -cf metadata.tar metadata.yaml; tar -C /data/base/debian-trixie -cf rootfs.tar .
incus image import metadata.tar rootfs.tar --alias base
incus init base peer < /dev/null; incus config set peer boot.autostart false
cd /; rm -rf /data/peer; sync";

pub(crate) fn measure(home: &mut Home, figures: &mut Figures) {
    say("peer: making the other way's container (about a minute)");
    let _ = home.vm_shell(PREPARE).ok();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        say(&format!("peer: both ways {round} of {ROUNDS}"));
        restart(home);
        ours.push(
            home.testudo(&["run", "--", "true"])
                .ok()
                .elapsed
                .as_secs_f64(),
        );
        restart(home);
        let done = home
            .vm_shell("incus start peer && until incus exec peer -- true 2>/dev/null; do :; done");
        theirs.push(done.ok().elapsed.as_secs_f64());
    }
    figures.container_s = median(ours);
    figures.incus_s = median(theirs);
    figures.ratio_to_incus = figures.container_s / figures.incus_s;
    debian_kernel(figures);
}

/// Brings the VM up anew without any container.
fn restart(home: &Home) {
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    let _ = home.run("vmc", &["start", "--no-shell", "termina"]).ok();
}

fn debian_kernel(figures: &mut Figures) {
    let place = |variable: &str| {
        PathBuf::from(std::env::var_os(variable).expect("cargo xtask bench sets it"))
    };
    let marker = std::env::var(MARKER).expect("cargo xtask bench sets it");
    let seconds = (1..=ROUNDS).map(|round| {
        say(&format!("peer: Debian's kernel {round} of {ROUNDS}"));
        let mut qemu = Command::new("qemu-system-x86_64");
        // The board and processor that Termina has on this engine; only the serial port is more, for the marker.
        qemu.args([
            "-M",
            "microvm,acpi=off,x-option-roms=off,isa-serial=on",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "1024",
            "-nodefaults",
        ]);
        qemu.args(["-no-reboot", "-display", "none", "-serial", "stdio"]);
        qemu.arg("-kernel")
            .arg(place(KERNEL))
            .arg("-initrd")
            .arg(place(INITRD));
        qemu.args([
            "-append",
            "console=ttyS0 quiet rdinit=/init reboot=t panic=-1",
        ]);
        let output = qemu
            .stdin(std::process::Stdio::null())
            .output()
            .expect("QEMU is there");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let uptime = said
            .split_once(&marker)
            .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        uptime.unwrap_or_else(|| panic!("Debian's kernel did not reach init:\n{said}"))
    });
    figures.debian_kernel_to_init_s = median(seconds.collect());
    figures.ratio_kernel_to_debian = figures.kernel_to_init_s / figures.debian_kernel_to_init_s;
}
