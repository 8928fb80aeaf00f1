//! The walls around this process: no name of the host but the compositor's socket, no network, no
//! device, and only the system calls that passing frames on needs.

use std::os::fd::OwnedFd;

use anyhow::Context as _;
use libc as nr;
use sys::jail::{Allowed, Jail, Limits, Root, Walls};

/// For each of 64 programs: link, compositor, a pair, epoll, event, and duplicates; 128 pipes and the
/// pools that are on their way. More than a thousand pools at once is no honest VM.
const MAX_DESCRIPTORS: u64 = 4096;

/// The system calls of a running server.
const CALLS: &[Allowed] = &[
    // Memory.
    Allowed::call(nr::SYS_brk),
    Allowed::call(nr::SYS_madvise),
    Allowed::mapping(nr::SYS_mmap),
    Allowed::mapping(nr::SYS_mprotect),
    Allowed::call(nr::SYS_mremap),
    Allowed::call(nr::SYS_munmap),
    // Waiting, here and in wl-proxy.
    Allowed::call(nr::SYS_poll),
    Allowed::call(nr::SYS_ppoll),
    Allowed::call(nr::SYS_epoll_create1),
    Allowed::call(nr::SYS_epoll_ctl),
    Allowed::call(nr::SYS_epoll_pwait),
    Allowed::call(nr::SYS_epoll_wait),
    Allowed::call(nr::SYS_eventfd2),
    Allowed::call(nr::SYS_restart_syscall),
    Allowed::call(nr::SYS_rt_sigreturn),
    // Links, the compositor, and the pairs between channel and state: unix sockets only.
    Allowed::call(nr::SYS_accept4),
    Allowed::with(nr::SYS_socket, 0, nr::AF_UNIX as u64),
    Allowed::with(nr::SYS_socketpair, 0, nr::AF_UNIX as u64),
    Allowed::call(nr::SYS_connect),
    Allowed::call(nr::SYS_recvfrom),
    Allowed::call(nr::SYS_recvmsg),
    Allowed::call(nr::SYS_sendto),
    Allowed::call(nr::SYS_sendmsg),
    Allowed::call(nr::SYS_shutdown),
    // Pipes of the clipboard, and the log.
    Allowed::call(nr::SYS_close),
    Allowed::call(nr::SYS_pipe2),
    Allowed::call(nr::SYS_read),
    Allowed::call(nr::SYS_write),
    Allowed::with(nr::SYS_ioctl, 1, nr::FIONBIO),
    // Pools and keymaps.
    Allowed::call(nr::SYS_memfd_create),
    Allowed::call(nr::SYS_fallocate),
    Allowed::call(nr::SYS_ftruncate),
    Allowed::call(nr::SYS_fstat),
    Allowed::call(nr::SYS_pread64),
    Allowed::call(nr::SYS_pwrite64),
    Allowed::with(nr::SYS_fcntl, 1, nr::F_GETFD as u64),
    Allowed::with(nr::SYS_fcntl, 1, nr::F_DUPFD_CLOEXEC as u64),
    Allowed::with(nr::SYS_fcntl, 1, nr::F_ADD_SEALS as u64),
    // Time where the vDSO has none, seeds of hash maps, the end.
    Allowed::call(nr::SYS_clock_gettime),
    Allowed::call(nr::SYS_exit_group),
    Allowed::call(nr::SYS_futex),
    Allowed::call(nr::SYS_getrandom),
    Allowed::call(nr::SYS_sigaltstack),
];

/// Shuts this process in with the sockets of `directory`, which becomes the current directory.
///
/// # Errors
/// When a wall that the kernel offers can't be raised; the process must end.
pub fn enter(directory: OwnedFd) -> anyhow::Result<()> {
    // The first look at the clock searches for the vDSO with a call that is not needed again.
    let _ = wayland::stream::clock_ns();
    let limits = Limits {
        descriptors: MAX_DESCRIPTORS,
        threads: 0,
    };
    let cell = Jail {
        root: Root::Sockets(directory),
        limits,
    }
    .isolate()
    .context("cannot enter the jail")?;
    if let Walls::WithoutNamespaces(refusal) = cell.walls() {
        tracing::warn!(%refusal, "the kernel refuses namespaces; the other walls stand");
    }
    cell.lock(&[CALLS]).context("cannot lock the jail")
}
