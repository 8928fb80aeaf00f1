//! The configuration that LXC reads at each start, written from the container's own (lxc.container.conf(5)).

use std::fmt::Write;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::config::{Config, IDS};
use super::home::Home;
use super::rootfs::Rootfs;
use crate::network;

/// Where LXC puts the root file system together, in a mount namespace of its own.
pub(super) const ASSEMBLY: &str = "/run/testudo/assembly";

/// Console output kept of each container; LXC keeps one older file of the same size.
const CONSOLE_BYTES: u32 = 256 << 10;

/// Devices that a container may use, as `type major:minor access`: memory, terminals, FUSE and tunnels
/// (Documentation/admin-guide/devices.txt). None of the VM's disks is among them.
const DEVICES: [&str; 12] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
    "c 10:* rwm",
];

/// The VM's own nodes that containers are given. Users inside open them without being root: FUSE file systems, and
/// the network of containers in containers.
const SHARED_DEVICES: [&str; 2] = ["/dev/fuse", "/dev/net/tun"];

/// What init the image brings decides how it is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Init {
    Systemd,
    BusyBox,
    Other,
    /// The image has none: our own.
    Ours,
}

impl Init {
    /// Looks what `/sbin/init` is.
    pub(super) fn of(rootfs: &Rootfs) -> Self {
        let Some(target) = rootfs.resolved_name("sbin/init") else {
            return Self::Ours;
        };
        match target.as_str() {
            name if name.starts_with("systemd") => Self::Systemd,
            name if name.starts_with("busybox") => Self::BusyBox,
            _ => Self::Other,
        }
    }

    /// The signal that makes it stop the container (lxc.signal.halt): systemd(1) halts at SIGRTMIN+3, BusyBox
    /// at SIGUSR2, sysvinit and OpenRC at SIGPWR.
    pub(super) fn halt(self) -> i32 {
        match self {
            Self::Systemd => 37,
            Self::BusyBox => 12,
            Self::Other => 30,
            Self::Ours => 15,
        }
    }
}

/// Writes the whole configuration of a start.
pub(super) fn write(home: &Home, config: &Config, init: Init) -> String {
    let mut text = String::with_capacity(4096);
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        writeln!(text, "{key} = {value}").expect("writing to a string cannot fail");
    };
    line("lxc.uts.name", &home.name);
    line(
        "lxc.rootfs.path",
        &format_args!("dir:{}", home.rootfs().display()),
    );
    line("lxc.rootfs.mount", &ASSEMBLY);
    line("lxc.rootfs.options", &"idmap=container,nodev");
    for kind in ["u", "g"] {
        line(
            "lxc.idmap",
            &format_args!("{kind} 0 {} {IDS}", config.first_id()),
        );
    }
    line("lxc.signal.halt", &init.halt());
    line("lxc.autodev", &1);
    line("lxc.tty.max", &0);
    line("lxc.pty.max", &1024);
    line("lxc.console.logfile", &home.console().display());
    line("lxc.console.size", &CONSOLE_BYTES);
    line("lxc.console.rotate", &1);
    // The virtual machine is the boundary; inside it a profile would forbid what nesting needs.
    line("lxc.apparmor.profile", &"unconfined");
    line("lxc.mount.auto", &"proc:rw sys:rw cgroup:rw:force");
    line("lxc.cgroup2.devices.deny", &"a");
    for device in DEVICES {
        line("lxc.cgroup2.devices.allow", &device);
    }
    // Whoever may open a socket may ping; without this, only what has a capability for it.
    line(
        "lxc.sysctl.net.ipv4.ping_group_range",
        &format_args!("0 {}", IDS - 1),
    );
    for entry in mounts(config, init) {
        line("lxc.mount.entry", &entry);
    }
    if init == Init::Ours {
        line("lxc.init.cmd", &format_args!("/{OUR_INIT} container-init"));
    }
    for (key, value) in card(config) {
        line(&format!("lxc.net.0.{key}"), &value);
    }
    text
}

/// Where images without an init find ours: on the container's own `/dev`, which is never on its disk.
const OUR_INIT: &str = "dev/.testudo-init";

fn mounts(config: &Config, init: Init) -> Vec<String> {
    let mut entries = vec![
        "/opt/testudo opt/testudo none bind,ro,nosuid,nodev,create=dir,optional 0 0".to_owned(),
        "tmpfs run tmpfs rw,nosuid,nodev,mode=755,size=20%,create=dir 0 0".to_owned(),
    ];
    for device in SHARED_DEVICES {
        let inside = device.trim_start_matches('/');
        entries.push(format!(
            "{device} {inside} none bind,create=file,optional 0 0"
        ));
    }
    // LXC covers a file of the container's /proc, and the kernel lets containers inside mount a new one only where
    // some whole one is in sight (mount_too_revealing in fs/namespace.c). The same for /sys.
    entries.push("proc dev/.lxc/proc proc create=dir,optional 0 0".to_owned());
    entries.push("sys dev/.lxc/sys sysfs create=dir,optional 0 0".to_owned());
    // What systemd reads from its runtime folders, in whatever distribution; nothing of it is on the container's disk.
    for folder in ["environment.d", "tmpfiles.d"] {
        entries.push(format!(
            "/opt/testudo/{folder} run/{folder} none bind,ro,nosuid,nodev,noexec,create=dir,optional 0 0"
        ));
    }
    if let Some(user) = &config.user {
        // The first shell comes before systemd-logind; it leaves a directory alone that is mounted already.
        entries.push(format!(
            "tmpfs run/user/{uid} tmpfs rw,nosuid,nodev,mode=700,uid={uid},gid={},size=10%,create=dir 0 0",
            user.gid,
            uid = user.uid,
        ));
    }
    if init == Init::Systemd {
        // The first shell comes before systemd's own tmp.mount, which would hide what was written there until then.
        // With the options of that unit.
        entries.push(
            "tmpfs tmp tmpfs rw,nosuid,nodev,strictatime,mode=1777,size=50%,nr_inodes=1m,create=dir 0 0".to_owned(),
        );
    }
    if init == Init::Ours {
        let ourselves = std::fs::read_link(crate::SELF).unwrap_or_else(|_| "/sbin/init".into());
        let ourselves = ourselves.display();
        entries.push(format!(
            "{ourselves} {OUR_INIT} none bind,ro,create=file 0 0"
        ));
    }
    entries
}

/// The container's network card: fixed addresses, since we give out every one of them.
fn card(config: &Config) -> Vec<(&'static str, String)> {
    let mut card = vec![
        ("type", "veth".to_owned()),
        ("link", network::BRIDGE.to_owned()),
        ("name", "eth0".to_owned()),
        ("flags", "up".to_owned()),
        ("hwaddr", format!("52:54:00:c0:de:{:02x}", config.number)),
        (
            "ipv4.address",
            network::container_v4(config.number).to_string(),
        ),
        ("ipv4.gateway", network::BRIDGE_V4.address.to_string()),
        (
            "ipv6.address",
            network::container_v6(config.number).to_string(),
        ),
        ("ipv6.gateway", network::BRIDGE_V6.address.to_string()),
    ];
    if let Some(mtu) = network::mtu() {
        card.push(("mtu", mtu.to_string()));
    }
    card
}

/// Makes the directories that a start needs in this boot, and the shared devices everyone's, as udev would.
pub(super) fn prepare() -> std::io::Result<()> {
    for device in SHARED_DEVICES {
        match std::fs::set_permissions(device, Permissions::from_mode(0o666)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::create_dir_all(super::home::RUN)?;
    std::fs::create_dir_all(Path::new(ASSEMBLY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::config::User;

    fn recipe(init: Init) -> String {
        let name = "penguin".parse().unwrap();
        let home = Home::new(Path::new("/data/containers"), &name);
        let user = User {
            name: "ada".to_owned(),
            uid: 1000,
            gid: 1001,
        };
        write(&home, &Config::new(11, Some(user)), init)
    }

    #[test]
    fn a_container_has_ids_addresses_and_a_runtime_directory_of_its_own() {
        let text = recipe(Init::Systemd);
        for line in [
            "lxc.uts.name = penguin",
            "lxc.rootfs.path = dir:/data/containers/penguin/rootfs",
            "lxc.idmap = u 0 511000000 1000000",
            "lxc.idmap = g 0 511000000 1000000",
            "lxc.signal.halt = 37",
            "lxc.net.0.ipv4.address = 100.115.93.11/24",
            "lxc.net.0.ipv6.gateway = fd74:6573:7475:646f::1",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "{line:?} is missing in\n{text}"
            );
        }
        assert!(text.contains("run/user/1000 tmpfs rw,nosuid,nodev,mode=700,uid=1000,gid=1001"));
        assert!(!text.contains("lxc.init.cmd"));
    }

    #[test]
    fn an_image_without_an_init_gets_ours() {
        let text = recipe(Init::Ours);
        assert!(text.contains("lxc.init.cmd = /dev/.testudo-init container-init"));
        assert!(text.contains("dev/.testudo-init none bind,ro,create=file"));
    }

    #[test]
    fn what_the_first_shell_writes_to_tmp_stays_when_systemd_gets_there() {
        assert!(recipe(Init::Systemd).contains("= tmpfs tmp tmpfs rw,"));
        assert!(!recipe(Init::Other).contains("= tmpfs tmp tmpfs"));
    }

    #[test]
    fn no_disk_of_the_vm_is_readable() {
        for line in recipe(Init::Other)
            .lines()
            .filter(|l| l.contains("devices.allow = b"))
        {
            assert_eq!(line, "lxc.cgroup2.devices.allow = b *:* m");
        }
    }
}
