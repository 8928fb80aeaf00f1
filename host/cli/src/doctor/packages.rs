//! How to install what is missing, on the distributions that we know.

/// A distribution's way to install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
    Pacman,
}

/// The machine's distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct System {
    manager: Option<Manager>,
    root: bool,
}

/// Something to install, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Package {
    /// The emulator.
    Qemu,
    /// The network's other end.
    Passt,
    /// Tools for user namespaces with more than one id.
    IdMaps,
}

impl System {
    /// Reads which distribution this is.
    pub(super) fn of_this_machine() -> Self {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self {
            manager: manager(&release),
            root: rustix::process::getuid().is_root(),
        }
    }

    /// Returns the command that installs `package`.
    pub(super) fn install(self, package: Package) -> String {
        let (command, name) = match (self.manager, package) {
            (Some(Manager::Apt), Package::Qemu) => ("apt-get install", "qemu-system-x86"),
            (Some(Manager::Apt), Package::Passt) => ("apt-get install", "passt"),
            (Some(Manager::Apt), Package::IdMaps) => ("apt-get install", "uidmap"),
            (Some(Manager::Dnf), Package::Qemu) => ("dnf install", "qemu-system-x86-core"),
            (Some(Manager::Dnf), Package::Passt) => ("dnf install", "passt"),
            (Some(Manager::Dnf), Package::IdMaps) => ("dnf install", "shadow-utils"),
            (Some(Manager::Pacman), Package::Qemu) => ("pacman -S", "qemu-system-x86"),
            (Some(Manager::Pacman), Package::Passt) => ("pacman -S", "passt"),
            (Some(Manager::Pacman), Package::IdMaps) => ("pacman -S", "shadow"),
            (None, Package::Qemu) => return "install QEMU's qemu-system-x86_64".to_owned(),
            (None, Package::Passt) => return "install passt".to_owned(),
            (None, Package::IdMaps) => return "install newuidmap and newgidmap".to_owned(),
        };
        self.as_root(&format!("{command} {name}"))
    }

    /// Returns `command` as this user has to type it for it to run as root.
    pub(super) fn as_root(self, command: &str) -> String {
        if self.root {
            command.to_owned()
        } else {
            format!("sudo {command}")
        }
    }
}

/// Returns the manager named by an os-release(5) file: the distribution's own, else one it descends from.
fn manager(release: &str) -> Option<Manager> {
    let field = |name: &str| {
        let line = release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default()
            .trim_matches(['"', '\''])
            .to_owned()
    };
    let names = format!("{} {}", field("ID"), field("ID_LIKE"));
    names.split_whitespace().find_map(|name| match name {
        "debian" | "ubuntu" => Some(Manager::Apt),
        "fedora" | "rhel" | "centos" => Some(Manager::Dnf),
        "arch" => Some(Manager::Pacman),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_install_like_their_ancestors() {
        assert_eq!(manager("NAME=\"x\"\nID=debian\n"), Some(Manager::Apt));
        assert_eq!(
            manager("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"),
            Some(Manager::Apt)
        );
        assert_eq!(
            manager("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"),
            Some(Manager::Dnf)
        );
        assert_eq!(manager("ID=void\n"), None);
    }

    #[test]
    fn only_root_needs_no_sudo() {
        let system = System {
            manager: Some(Manager::Pacman),
            root: false,
        };
        assert_eq!(system.install(Package::Passt), "sudo pacman -S passt");
        let root = System {
            manager: Some(Manager::Apt),
            root: true,
        };
        assert_eq!(
            root.install(Package::Qemu),
            "apt-get install qemu-system-x86"
        );
    }
}
