//! maitred, the VM's own program: PID 1, the agent that serves the host, and the small processes that the agent
//! starts from the same file, told apart by their first argument.

mod agent;
mod boot;
mod calls;
mod clock;
mod configure;
mod container;
mod container_init;
mod disk;
mod extras;
mod fault;
mod figures;
mod init;
mod log;
mod network;
mod power;
mod resolver;
mod vshd;

use std::process::ExitCode;

/// The file that this program was started from, for starting it again as something else.
const SELF: &str = "/proc/self/exe";

/// Where the image has its programs; the kernel starts PID 1 without a path.
const PATH: &str = "/usr/sbin:/usr/bin";

/// Returns a program of the image, to be started.
fn program(name: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(name);
    command.env("PATH", PATH);
    command
}

fn main() -> ExitCode {
    let called = std::env::args().next().unwrap_or_default();
    if let Some(name @ ("incus" | "lxc")) = called.rsplit('/').next() {
        return extras::run(name);
    }
    match std::env::args().nth(1).as_deref() {
        Some("session") => vshd::session::run(),
        Some("container-init") => container_init::run(),
        None if rustix::process::getpid().is_init() => init::run(),
        _ => ExitCode::from(2),
    }
}
