//! The system calls that every daemon makes; each device adds its own in `devices/<kind>/src/jail.rs`.

use libc::{
    SYS_brk, SYS_clock_gettime, SYS_close, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_wait,
    SYS_exit_group, SYS_fcntl, SYS_futex, SYS_getrandom, SYS_madvise, SYS_mmap, SYS_mprotect,
    SYS_mremap, SYS_munmap, SYS_read, SYS_recvmsg, SYS_restart_syscall, SYS_rt_sigreturn,
    SYS_sendmsg, SYS_sigaltstack, SYS_statx, SYS_write,
};
use sys::jail::Allowed;

/// What the loop, the allocator and the log need.
pub const COMMON: &[Allowed] = &[
    // Memory: the allocator, and the guest's memory as the front end hands it over.
    Allowed::call(SYS_brk),
    Allowed::call(SYS_madvise),
    Allowed::mapping(SYS_mmap),
    Allowed::mapping(SYS_mprotect),
    Allowed::call(SYS_mremap),
    Allowed::call(SYS_munmap),
    // The loop.
    Allowed::call(SYS_epoll_ctl),
    Allowed::call(SYS_epoll_pwait),
    Allowed::call(SYS_epoll_wait),
    Allowed::call(SYS_restart_syscall),
    Allowed::call(SYS_rt_sigreturn),
    // Messages with descriptors from the front end, doorbells, the log.
    Allowed::call(SYS_close),
    Allowed::call(SYS_read),
    Allowed::call(SYS_recvmsg),
    Allowed::call(SYS_sendmsg),
    Allowed::call(SYS_write),
    // Whether a descriptor is still open, which Rust asks before it closes one; the length of a memory file.
    Allowed::with(SYS_fcntl, 1, libc::F_GETFD as u64),
    // The memory of requests in flight, which the front end gets a descriptor of.
    Allowed::with(SYS_fcntl, 1, libc::F_DUPFD_CLOEXEC as u64),
    Allowed::with(SYS_statx, 2, libc::AT_EMPTY_PATH as u64),
    // Time where the vDSO has none, seeds of hash maps, the end.
    Allowed::call(SYS_clock_gettime),
    Allowed::call(SYS_exit_group),
    Allowed::call(SYS_futex),
    Allowed::call(SYS_getrandom),
    Allowed::call(SYS_sigaltstack),
];
