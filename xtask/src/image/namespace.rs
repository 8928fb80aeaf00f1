//! Runs a shell script as root over a whole range of user ids: as it is when this user is root, else
//! in a user namespace made of the ids that /etc/subuid lends to this user.

use std::process::Command;

/// Returns `sh -c script` with `arguments` as `$1` and on, with root's powers over files it makes.
pub(super) fn shell(script: &str, arguments: &[&str]) -> Command {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("sh")
    } else {
        let mut unshare = Command::new("unshare");
        // The ids of the range start at 0 inside, so that a file of uid 1000 is one there too. This user, to whom the cache
        // belongs, comes behind them: root has power only over files whose owners are known there.
        unshare.args([
            "--user",
            "--map-auto",
            "--map-user=65536",
            "--map-group=65536",
            "--setuid=0",
            "--setgid=0",
            "--",
            "sh",
        ]);
        unshare
    };
    command.args(["-e", "-c", script, "sh"]).args(arguments);
    command
}
