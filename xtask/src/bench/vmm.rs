//! `cargo xtask bench vmm [--json]`: throughput of our device daemons, beside QEMU's own devices and other vhost-user
//! daemons, on the same guest of QEMU's emulator in the same run; and what our monitor costs, in the lab.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::packages::{self, Purpose};
use crate::progress::line;
use crate::tester::Tester;
use crate::workspace::target;
use crate::{build, command, e2e, image, lab};

/// The peer for vsock and its version: only measured against, never part of the product.
const VSOCK_PEER: &str = "vhost-device-vsock";
const VSOCK_PEER_VERSION: &str = "0.3.0";

/// Makes a network with one address that is not loopback, and runs the program in it as an ordinary user.
const NETWORK: &str = "ip link set lo up && ip address add 192.0.2.1/32 dev lo && \
    exec unshare --user --map-user=1000 --map-group=1000 \"$0\" \"$@\"";

/// What counts for people: the load's key and its name with the unit.
const LOADS: &[(&str, &str)] = &[
    ("to_guest_mb_s", "to the guest, MB/s"),
    ("to_host_mb_s", "to the host, MB/s"),
    ("round_trips_s", "round trips of one byte, /s"),
    ("read_256k", "reads of 256 KiB, 4 at once, /s"),
    ("write_256k", "writes of 256 KiB, 4 at once, /s"),
    ("read_4k", "reads of 4 KiB, 8 at once, /s"),
    ("write_4k", "writes of 4 KiB, 8 at once, /s"),
    ("flush_4k", "write and flush of 4 KiB, /s"),
];

/// What the lab measures: its name, what it is, and the goal.
const MONITOR: &[(&str, &str, &str)] = &[
    (
        "exits",
        "exits from power-on until the agent is ready",
        "≤ 2,000",
    ),
    (
        "start_cpu_ms",
        "processor time of the monitor before the guest's first instruction, ms, all of it emulated",
        "≤ 15 on hardware",
    ),
    (
        "monitor_mib",
        "PSS of the monitor without guest memory, MiB",
        "≤ 5",
    ),
    (
        "tree_mib",
        "PSS of monitor and daemons without guest memory, MiB",
        "≤ 25",
    ),
    (
        "boot_s",
        "start of the first process to a shell's prompt, s",
        "",
    ),
    (
        "boot_qemu_s",
        "peer: the same with QEMU's microvm on the same KVM, s",
        "",
    ),
];

/// Builds what is measured and returns the figures: of devices by device, maker and load, and of the monitor.
///
/// # Errors
/// When something cannot be built or measured.
pub(super) fn measure(rounds: u32) -> Result<Value> {
    let devices = devices(rounds)?;
    line("bench: the monitor, in the lab");
    Ok(serde_json::json!({ "devices": devices, "monitor": lab::measure()? }))
}

fn devices(rounds: u32) -> Result<Value> {
    packages::ensure(&[Purpose::Image, Purpose::Product, Purpose::Devices])?;
    let image = image::build(&image::Arguments::default())?;
    line("bench: building the daemons, their guest and a peer");
    let built = |package: &str, program: &str| {
        let mut cargo = build::cargo("build");
        cargo.args(["--release", "--package", package, "--bin", program]);
        cargo.arg("--message-format=json-render-diagnostics");
        e2e::executable(&mut cargo)
    };
    let guest = guest(&built("measure", "device-guest")?)?;
    let parts = [
        (build::programs()?.join("crosvm"), "crosvm"),
        (image.join("vmlinux"), "vmlinux"),
        (guest, "guest.erofs"),
        (vsock_peer()?, VSOCK_PEER),
    ];
    let tester = Tester::find()?;
    let mut folder = None;
    for (from, name) in parts {
        let shared = tester.share(&from, &format!("devices/{name}"))?;
        let place = target()?.join("xtask").join("devices");
        folder = Some(match shared.parent() {
            Some(parent) if shared != from => parent.to_owned(),
            // An ordinary user's parts stay where they are; links bring them together.
            _ => link(&from, &place, name)?,
        });
    }
    let program = tester.share(
        &built("measure", "measure-devices")?,
        "devices/measure-devices",
    )?;
    line("bench: about ten minutes; the machine should do nothing else");
    let mut unshare = tester.command(Path::new("unshare"))?;
    unshare
        .args(["--map-root-user", "--net", "sh", "-c", NETWORK])
        .arg(program)
        .args(["all", &rounds.to_string()])
        .env(
            "TESTUDO_BENCH_PARTS",
            folder.context("a part without a folder")?,
        );
    let output = unshare
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the measuring program")?;
    if !output.status.success() {
        bail!("the measuring program failed ({})", output.status);
    }
    serde_json::from_slice(&output.stdout).context("cannot read the figures")
}

/// Returns the guest's root: its one program, and a busybox that sets the network up.
fn guest(init: &Path) -> Result<PathBuf> {
    let place = target()?.join("xtask").join("device-guest");
    let root = place.join("root");
    for folder in ["dev", "proc", "sys"] {
        std::fs::create_dir_all(root.join(folder)).context("cannot make the guest's root")?;
    }
    std::fs::copy(init, root.join("init")).context("cannot copy the guest's program")?;
    std::fs::copy("/bin/busybox", root.join("busybox")).context("cannot copy busybox")?;
    let packed = place.join("guest.erofs");
    command::output(
        Command::new("mkfs.erofs")
            .arg("--quiet")
            .arg(&packed)
            .arg(&root),
    )?;
    Ok(packed)
}

/// Returns the peer for vsock, from the registry as cargo has it.
fn vsock_peer() -> Result<PathBuf> {
    let place = target()?.join("peers");
    let mut install = build::cargo("install");
    install.args([
        VSOCK_PEER,
        "--version",
        VSOCK_PEER_VERSION,
        "--locked",
        "--quiet",
        "--root",
    ]);
    let status = install.arg(&place).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("{VSOCK_PEER} does not build");
    }
    Ok(place.join("bin").join(VSOCK_PEER))
}

fn link(from: &Path, place: &Path, name: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(place).context("cannot make a folder for the parts")?;
    let to = place.join(name);
    // A link of an earlier run may lead to an older part.
    let _not_there = std::fs::remove_file(&to);
    std::os::unix::fs::symlink(from, &to).context("cannot link a part")?;
    Ok(place.to_owned())
}

/// Returns the figures as tables of Markdown.
///
/// # Errors
/// When a figure is missing.
pub(super) fn table(figures: &Value) -> Result<String> {
    let (devices, monitor) = (&figures["devices"], &figures["monitor"]);
    Ok(format!(
        "{}\n{}",
        of_devices(devices)?,
        of_monitor(monitor)?
    ))
}

/// Returns a row for each figure of the monitor.
fn of_monitor(figures: &Value) -> Result<String> {
    let mut text = String::from("| monitor, in the lab | figure | goal |\n|---|---|---|\n");
    let figure = |name: &str| {
        let figure = figures[name].as_f64();
        figure.with_context(|| format!("no figure {name}"))
    };
    for (name, what, goal) in MONITOR {
        writeln!(text, "| {what} | {:.2} | {goal} |", figure(name)?)?;
    }
    let ratio = figure("boot_s")? / figure("boot_qemu_s")?;
    writeln!(text, "| our boot to the peer's | {ratio:.2} | ≤ 0.7 |")?;
    Ok(text)
}

/// Returns a row for each device and load: ours, the peers', and ours to the best of them.
fn of_devices(figures: &Value) -> Result<String> {
    type Makers = BTreeMap<String, BTreeMap<String, f64>>;
    let devices: BTreeMap<String, Makers> =
        serde_json::from_value(figures.clone()).context("the figures have another shape")?;
    let mut text = String::from(
        "| device | load | ours | peers | ours to the best peer |\n|---|---|---|---|---|\n",
    );
    for (device, makers) in &devices {
        let ours = makers
            .get("ours")
            .with_context(|| format!("no figures of our {device}"))?;
        for (key, what) in LOADS {
            let Some(own) = ours.get(*key) else { continue };
            let peers: Vec<(&str, f64)> = makers
                .iter()
                .filter(|(maker, _)| *maker != "ours")
                .filter_map(|(maker, loads)| Some((maker.as_str(), *loads.get(*key)?)))
                .collect();
            let best = peers.iter().map(|(_, figure)| *figure).fold(0.0, f64::max);
            let all: Vec<String> = peers
                .iter()
                .map(|(maker, figure)| format!("{} {figure:.0}", maker.replace('_', " ")))
                .collect();
            let ratio = own / best;
            writeln!(
                text,
                "| {device} | {what} | {own:.0} | {} | {ratio:.2} |",
                all.join(", ")
            )?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_set_against_the_best_peer() {
        let figures = serde_json::json!({ "net": {
            "ours": { "to_guest_mb_s": 90.0 },
            "qemu_user": { "to_guest_mb_s": 50.0 },
            "qemu_stream": { "to_guest_mb_s": 100.0 },
        }});
        let text = of_devices(&figures).unwrap();
        let row = "| net | to the guest, MB/s | 90 | qemu stream 100, qemu user 50 | 0.90 |";
        assert!(text.contains(row), "{text}");
        assert!(of_devices(&serde_json::json!({ "net": {} })).is_err());
    }

    #[test]
    fn a_figure_that_is_missing_is_an_error() {
        let names = MONITOR.iter().map(|(name, ..)| (*name).to_owned());
        let mut figures: serde_json::Map<String, Value> =
            names.map(|name| (name, 2.into())).collect();
        let text = of_monitor(&figures.clone().into()).unwrap();
        assert!(
            text.contains("| our boot to the peer's | 1.00 | ≤ 0.7 |"),
            "{text}"
        );
        figures.remove("tree_mib");
        assert!(of_monitor(&figures.into()).is_err());
    }
}
