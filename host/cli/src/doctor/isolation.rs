//! The walls around VMs and their devices: namespaces (really tried), Landlock, id ranges, and who we are.

use rustix::process::getuid;

use super::packages::Package;
use super::{Finding, Patient, tools};

/// Ids that a container usually needs.
const IDS: u64 = 65_536;

/// Returns what was found of the walls.
pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let support = sys::jail::support();
    let namespaces = match support.namespaces_refused {
        None => Finding::ok("user-namespaces", "this user may make them"),
        Some(error) => Finding::warn(
            "user-namespaces",
            format!("refused ({error}): device daemons run with fewer walls"),
            refused_by(patient),
        ),
    };
    let landlock = match support.landlock_abi {
        0 => Finding::warn(
            "landlock",
            "the kernel has no Landlock: device daemons run with one wall less",
            "boot a kernel with CONFIG_SECURITY_LANDLOCK and landlock in the lsm= list",
        ),
        abi => Finding::ok("landlock", format!("version {abi}")),
    };
    vec![namespaces, landlock, ids(patient), user()]
}

/// Returns what most likely refuses user namespaces here.
fn refused_by(patient: &Patient<'_>) -> String {
    let switched = |name: &str, value: &str| {
        std::fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|text| text.trim() == value)
    };
    let sysctl = |setting: &str| patient.system.as_root(&format!("sysctl -w {setting}"));
    if switched("kernel/unprivileged_userns_clone", "0") {
        sysctl("kernel.unprivileged_userns_clone=1")
    } else if switched("kernel/apparmor_restrict_unprivileged_userns", "1") {
        sysctl("kernel.apparmor_restrict_unprivileged_userns=0")
    } else if switched("user/max_user_namespaces", "0") {
        sysctl("user.max_user_namespaces=15000")
    } else {
        "allow user namespaces in the container or policy that this session runs in".to_owned()
    }
}

fn ids(patient: &Patient<'_>) -> Finding {
    let uid = getuid();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = crate::person::named(&passwd, uid.as_raw()).unwrap_or_default();
    let enough = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        granted(&text, name, uid.as_raw()) >= IDS
    };
    if tools::find("newuidmap").is_none() {
        return Finding::warn(
            "id-ranges",
            "newuidmap is not installed: only shared folders with several owners need it",
            patient.system.install(Package::IdMaps),
        );
    }
    if enough("/etc/subuid") && enough("/etc/subgid") {
        return Finding::ok("id-ranges", "subuid and subgid are set");
    }
    let command = format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}");
    Finding::warn(
        "id-ranges",
        "this user has no 65536 ids in /etc/subuid and /etc/subgid: only shared folders with several owners need them",
        patient.system.as_root(command.trim_end()),
    )
}

/// Returns how many ids a subuid(5) file grants to the user.
fn granted(text: &str, name: &str, uid: u32) -> u64 {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let count: u64 = fields.nth(1)?.trim().parse().ok()?;
        let ours = (!name.is_empty() && owner == name) || owner.parse() == Ok(uid);
        ours.then_some(count)
    });
    lines.fold(0, u64::saturating_add)
}

fn user() -> Finding {
    if getuid().is_root() {
        return Finding::warn(
            "user",
            "you are root: VMs and their devices would run as root, which they never need",
            "log in as an ordinary user",
        );
    }
    Finding::ok("user", "an ordinary one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_counted_by_name_and_number() {
        let text = "anna:100000:65536\n1000:300000:10\nbob:1:99999\nbroken\n";
        assert_eq!(granted(text, "anna", 1000), 65_546);
        assert_eq!(granted(text, "", 7), 0);
    }
}
