//! Control groups: whether a VM can be given a group of its own with limits.

use std::path::Path;

use super::Finding;

const ROOT: &str = "/sys/fs/cgroup";
/// What limits of a VM need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// How systemd is told to hand a user's groups over (systemd.resource-control(5)).
const DELEGATE: &str =
    "systemd: a drop-in for user@.service with [Service] Delegate=cpu cpuset io memory pids";

/// Returns what was found of the caller's own group.
pub(super) fn check() -> Finding {
    let without = "VMs run, but without limits of their own";
    if !Path::new(ROOT).join("cgroup.controllers").is_file() {
        return Finding::warn(
            "cgroups",
            format!("control groups version 2 are not mounted at {ROOT}: {without}"),
            "boot with systemd.unified_cgroup_hierarchy=1",
        );
    }
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(group) = own_group(&own) else {
        return Finding::warn(
            "cgroups",
            format!("this process is in no version 2 group: {without}"),
            DELEGATE,
        );
    };
    let folder = Path::new(ROOT).join(group.trim_start_matches('/'));
    let writable =
        rustix::fs::access(folder.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok();
    let present = std::fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    let missing: Vec<_> = CONTROLLERS
        .into_iter()
        .filter(|wanted| !present.split_whitespace().any(|found| found == *wanted))
        .collect();
    match (writable, missing.is_empty()) {
        (true, true) => Finding::ok("cgroups", "delegated to this user"),
        (false, _) => Finding::warn(
            "cgroups",
            format!("this user's group is not its own: {without}"),
            DELEGATE,
        ),
        (true, false) => {
            let missing = missing.join(", ");
            Finding::warn(
                "cgroups",
                format!("not delegated: {missing}; {without}"),
                DELEGATE,
            )
        }
    }
}

/// Returns the version 2 group in the text of /proc/self/cgroup (cgroups(7): hierarchy 0).
fn own_group(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_2_line_is_found_among_others() {
        assert_eq!(
            own_group("5:cpu:/x\n0::/user.slice/a\n"),
            Some("/user.slice/a")
        );
        assert_eq!(own_group("5:cpu:/x\n"), None);
    }
}
