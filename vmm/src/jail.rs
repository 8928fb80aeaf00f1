//! What `crosvm run` keeps of the host: the descriptors it was given and the system calls listed here.
//!
//! It enters its jail after it has opened KVM and reserved guest memory, and before it meets a daemon or a guest.
//! What is in it then: KVM's descriptors, guest memory, sockets to the daemons and to concierge, the console.

use libc::{
    FIONREAD, SYS_brk, SYS_clock_gettime, SYS_clock_nanosleep, SYS_clone, SYS_clone3, SYS_close,
    SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_wait, SYS_eventfd2, SYS_exit,
    SYS_exit_group, SYS_fallocate, SYS_fcntl, SYS_futex, SYS_getpid, SYS_getrandom, SYS_getrusage,
    SYS_gettid, SYS_ioctl, SYS_lseek, SYS_madvise, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_munmap,
    SYS_poll, SYS_ppoll, SYS_prctl, SYS_pwrite64, SYS_read, SYS_recvfrom, SYS_recvmsg,
    SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn,
    SYS_sched_getaffinity, SYS_sched_yield, SYS_sendmsg, SYS_sendto, SYS_set_robust_list,
    SYS_setsockopt, SYS_shutdown, SYS_sigaltstack, SYS_statx, SYS_tgkill, SYS_write, SYS_writev,
};
use spec::vm::{MAX_DEVICES, MAX_QUEUES, VmSpec};
use sys::jail::{Allowed, Cell, Jail, JailError, Limits, Root, Walls};

/// vCPUs come on top: console, balloon, and deadlines while daemons are asked.
const THREADS: u64 = 16;
/// Standard streams, KVM, memory, control, console, events.
const DESCRIPTORS: u64 = 64;
/// Per device: two sockets, the daemon's requests, its record, and a notification and an interrupt a queue, each
/// twice because the transport keeps one and the device the other.
const DESCRIPTORS_PER_DEVICE: u64 = 8 + 4 * (MAX_QUEUES as u64 + 2);

/// KVM's requests have this type, in bits 8 to 15 of their number (`KVMIO`).
const KVM_REQUESTS: u64 = 0xae00;
const REQUEST_TYPE: u64 = 0xff00;

/// What the machine does from its first to its last exit.
const ALLOWED: &[Allowed] = &[
    // KVM, and nothing else of the large world behind ioctl.
    Allowed::masked(SYS_ioctl, 1, REQUEST_TYPE, KVM_REQUESTS),
    Allowed::with(SYS_ioctl, 1, FIONREAD),
    // Memory: the allocator, thread stacks, holes in guest memory.
    Allowed::call(SYS_brk),
    Allowed::call(SYS_fallocate),
    // A snapshot, into the file that concierge hands over.
    Allowed::call(SYS_pwrite64),
    Allowed::call(SYS_madvise),
    Allowed::mapping(SYS_mmap),
    Allowed::mapping(SYS_mprotect),
    Allowed::call(SYS_mremap),
    Allowed::call(SYS_munmap),
    // Threads: a device's starts when the guest's driver does. `clone3` hides its flags from the filter, so a
    // process could be made too; it would be in this jail and could execute nothing.
    Allowed::call(SYS_clone),
    Allowed::call(SYS_clone3),
    Allowed::call(SYS_exit),
    Allowed::call(SYS_futex),
    Allowed::call(SYS_gettid),
    Allowed::call(SYS_getpid),
    Allowed::call(SYS_prctl),
    Allowed::call(SYS_rseq),
    Allowed::call(SYS_sched_getaffinity),
    Allowed::call(SYS_sched_yield),
    Allowed::call(SYS_set_robust_list),
    // Signals stop vCPUs.
    Allowed::call(SYS_rt_sigaction),
    Allowed::call(SYS_rt_sigprocmask),
    Allowed::call(SYS_rt_sigreturn),
    Allowed::call(SYS_sigaltstack),
    Allowed::call(SYS_tgkill),
    // Waiting.
    Allowed::call(SYS_clock_gettime),
    Allowed::call(SYS_clock_nanosleep),
    Allowed::call(SYS_epoll_create1),
    Allowed::call(SYS_epoll_ctl),
    Allowed::call(SYS_epoll_pwait),
    Allowed::call(SYS_epoll_wait),
    Allowed::call(SYS_eventfd2),
    Allowed::call(SYS_poll),
    Allowed::call(SYS_ppoll),
    Allowed::call(SYS_restart_syscall),
    // Daemons, control, console, log.
    Allowed::call(SYS_close),
    Allowed::with(SYS_fcntl, 1, libc::F_DUPFD_CLOEXEC as u64),
    Allowed::with(SYS_fcntl, 1, libc::F_GETFD as u64),
    Allowed::call(SYS_lseek),
    Allowed::call(SYS_read),
    Allowed::call(SYS_recvfrom),
    Allowed::call(SYS_recvmsg),
    Allowed::call(SYS_sendmsg),
    Allowed::call(SYS_sendto),
    Allowed::call(SYS_setsockopt),
    Allowed::call(SYS_shutdown),
    Allowed::with(SYS_statx, 2, libc::AT_EMPTY_PATH as u64),
    Allowed::call(SYS_write),
    Allowed::call(SYS_writev),
    // Socket pairs for a daemon's own requests; no other kind of socket.
    Allowed::with(libc::SYS_socketpair, 0, libc::AF_UNIX as u64),
    // Counters, randomness, the end.
    Allowed::call(SYS_getrandom),
    Allowed::call(SYS_getrusage),
    Allowed::call(SYS_exit_group),
];

/// Leaves the host behind; the machine is built in the process that comes back.
///
/// # Errors
/// A wall that the kernel offers could not be raised.
pub(crate) fn enter(spec: &VmSpec) -> Result<Cell, JailError> {
    let limits = Limits {
        descriptors: DESCRIPTORS + MAX_DEVICES as u64 * DESCRIPTORS_PER_DEVICE,
        threads: THREADS + u64::from(spec.vcpus),
    };
    let cell = Jail {
        root: Root::Empty,
        limits,
    }
    .isolate()?;
    if let Walls::WithoutNamespaces(refusal) = cell.walls() {
        tracing::warn!("no namespaces of its own: the kernel refused them ({refusal})");
    }
    Ok(cell)
}

/// Gives up every system call that a running machine does not make.
///
/// # Errors
/// The kernel refused.
pub(crate) fn lock(cell: Cell) -> Result<(), JailError> {
    cell.lock(&[ALLOWED])
}
