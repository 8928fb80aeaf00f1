//! Tries to break out of every device's jail: each attempt runs in a process of its own that enters the real jail.
//!
//! Method: this program starts itself again for each pair of policy and attempt. Before the last wall (seccomp) an
//! attempt must be refused by the others; behind it, it must be killed. An attempt that succeeds exits with
//! [`ESCAPED`]. The same program checks that an empty attempt survives, so that a jail which kills everything fails.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot be set up fails where it stands"
)]
#![expect(
    unsafe_code,
    reason = "UNSAFETY: attempts are raw system calls, made in a process that is thrown away"
)]

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use device_net::Backend;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use sys::jail::{Jail, Limits, Walls};
use virtio::launch::Policy;

/// The attempt did what it must not.
const ESCAPED: u8 = 99;
/// The attempt was answered with an error.
const REFUSED: u8 = 10;
/// The kernel forbids namespaces here, so that refusals before seccomp cannot be asked for.
const NO_NAMESPACES: u8 = 11;
/// What a keeper reports when seccomp killed its daemon.
const KILLED: i32 = 128 + libc::SIGSYS;

/// The word that says that this is the second time, where namespaces are forbidden.
const FORBIDDEN: &str = "namespaces-are-forbidden";

/// Goes on as the program that follows, in a user namespace that allows none below it.
const NO_MORE_NAMESPACES: &str =
    "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"";

/// The directory that a vsock daemon may see, next to a socket that it may not.
const HYBRID: &str = "hybrid";

const POLICIES: &[&str] = &["rng", "vsock", "block", "net", "net-tap"];

/// What is tried, and the trial; true when it got through.
type Attempt = (&'static str, fn(&Outside) -> bool);

/// What is tried behind the namespaces, Landlock and lost capabilities, but with every system call.
const BEFORE_SECCOMP: &[Attempt] = &[
    ("open a host file", |_| File::open("/etc/passwd").is_ok()),
    ("open a process's memory", |_| {
        File::open("/proc/self/mem").is_ok()
    }),
    ("create a file", |_| File::create("/escaped").is_ok()),
    ("walk up from the root", |_| {
        File::open("../../../../etc/passwd").is_ok()
    }),
    ("walk up from a descriptor", |_| (3..64).any(opens_above)),
    ("connect to the host's loopback", |outside| {
        TcpStream::connect(("127.0.0.1", outside.tcp)).is_ok()
    }),
    ("connect to an abstract socket", |outside| {
        let name = SocketAddr::from_abstract_name(&outside.abstract_name).unwrap();
        UnixStream::connect_addr(&name).is_ok()
    }),
    ("connect to a host socket next to its directory", |_| {
        UnixStream::connect("../socket").is_ok()
    }),
    ("connect to a host socket by path", |outside| {
        UnixStream::connect(&outside.path).is_ok()
    }),
    ("signal its parent", |outside| {
        let parent = rustix::process::Pid::from_raw(outside.pid).unwrap();
        rustix::process::test_kill_process(parent).is_ok()
    }),
    ("mount", |_| {
        call(
            libc::SYS_mount,
            [
                c"none".as_ptr() as usize,
                c"/".as_ptr() as usize,
                c"tmpfs".as_ptr() as usize,
                0,
                0,
            ],
        ) == 0
    }),
    ("make namespaces", |_| {
        call(libc::SYS_unshare, [libc::CLONE_NEWNS as usize, 0, 0, 0, 0]) == 0
    }),
    ("become root", |_| {
        call(libc::SYS_setuid, [77, 0, 0, 0, 0]) == 0
    }),
];

/// What is tried behind every wall.
const BEHIND_SECCOMP: &[Attempt] = &[
    ("open", |_| File::open("/").is_ok()),
    ("openat2", |_| call(libc::SYS_openat2, [0; 5]) >= 0),
    ("fork", |_| {
        call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0]) >= 0
    }),
    ("fork by clone3", |_| call(libc::SYS_clone3, [0; 5]) >= 0),
    ("vfork", |_| call(libc::SYS_vfork, [0; 5]) >= 0),
    ("execute", |_| {
        call(
            libc::SYS_execve,
            [c"/proc/self/exe".as_ptr() as usize, 0, 0, 0, 0],
        ) >= 0
    }),
    ("trace", |_| {
        call(
            libc::SYS_ptrace,
            [libc::PTRACE_TRACEME as usize, 0, 0, 0, 0],
        ) >= 0
    }),
    ("read another process's memory", |outside| {
        call(
            libc::SYS_process_vm_readv,
            [outside.pid as usize, 0, 0, 0, 0],
        ) >= 0
    }),
    ("make an internet socket", |_| {
        call(
            libc::SYS_socket,
            [libc::AF_INET as usize, libc::SOCK_STREAM as usize, 0, 0, 0],
        ) >= 0
    }),
    ("make a netlink socket", |_| {
        call(
            libc::SYS_socket,
            [libc::AF_NETLINK as usize, libc::SOCK_RAW as usize, 0, 0, 0],
        ) >= 0
    }),
    ("shrink guest memory", |outside| {
        call(
            libc::SYS_ftruncate,
            [outside.memory.as_raw_fd() as usize, 0, 0, 0, 0],
        ) == 0
    }),
    ("map executable memory", |_| {
        let protection = (libc::PROT_READ | libc::PROT_EXEC) as usize;
        call(
            libc::SYS_mmap,
            [
                0,
                4096,
                protection,
                (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize,
                usize::MAX,
            ],
        ) != -1
    }),
    ("make memory executable", |_| {
        call(libc::SYS_mprotect, [0, 0, libc::PROT_EXEC as usize, 0, 0]) == 0
    }),
    ("set io_uring up", |_| {
        call(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0]) >= 0
    }),
    ("register with io_uring", |_| {
        call(libc::SYS_io_uring_register, [0; 5]) >= 0
    }),
    ("load bpf", |_| call(libc::SYS_bpf, [0; 5]) >= 0),
    ("catch page faults", |_| {
        call(libc::SYS_userfaultfd, [0; 5]) >= 0
    }),
    ("signal", |_| call(libc::SYS_kill, [1, 0, 0, 0, 0]) >= 0),
    ("ioctl", |_| {
        call(libc::SYS_ioctl, [2, libc::TIOCSTI as usize, 0, 0, 0]) >= 0
    }),
    ("raise its limits", |_| {
        call(libc::SYS_prlimit64, [0; 5]) >= 0
    }),
    ("loosen seccomp", |_| call(libc::SYS_seccomp, [0; 5]) >= 0),
    ("change its root", |_| {
        call(libc::SYS_chroot, [c"/".as_ptr() as usize, 0, 0, 0, 0]) >= 0
    }),
    ("go into other namespaces", |_| {
        call(libc::SYS_setns, [0; 5]) >= 0
    }),
];

/// What there would be to find on the host.
struct Outside {
    pid: i32,
    tcp: u16,
    abstract_name: String,
    path: String,
    memory: OwnedFd,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, policy, stage, number, pid, tcp, name, path] = arguments.as_slice()
        && word == "attempt"
    {
        let outside = Outside {
            pid: pid.parse().unwrap(),
            tcp: tcp.parse().unwrap(),
            abstract_name: name.clone(),
            path: path.clone(),
            memory: rustix::fs::memfd_create("memory", MemfdFlags::CLOEXEC).unwrap(),
        };
        return attempt(policy, stage, number.parse().unwrap(), &outside);
    }
    let here = try_all();
    let is_second = arguments.iter().any(|word| word == FORBIDDEN);
    if is_second || sys::jail::support().namespaces_refused.is_some() {
        return here;
    }
    let there = without_namespaces();
    if here == ExitCode::SUCCESS {
        there
    } else {
        here
    }
}

/// Makes all attempts again where the kernel refuses namespaces, as some distributions have it: behind Landlock and
/// seccomp alone. What is tried before seccomp then says that there is nothing to try.
fn without_namespaces() -> ExitCode {
    let mut again = Command::new("unshare");
    again
        .args(["--user", "--map-root-user", "sh", "-c", NO_MORE_NAMESPACES])
        .arg(std::env::current_exe().unwrap())
        .arg(FORBIDDEN);
    if again.status().unwrap().success() {
        ExitCode::SUCCESS
    } else {
        println!("the attempts without namespaces went wrong");
        ExitCode::FAILURE
    }
}

/// Enters a jail and makes one attempt there.
fn attempt(policy: &str, stage: &str, number: usize, outside: &Outside) -> ExitCode {
    let Policy {
        root,
        descriptors,
        allowed,
    } = policy_of(policy, outside);
    let limits = Limits {
        descriptors: 64 + descriptors,
        threads: 0,
    };
    let cell = Jail { root, limits }.isolate().unwrap();
    if stage == "before" {
        if matches!(cell.walls(), Walls::WithoutNamespaces(_)) {
            return ExitCode::from(NO_NAMESPACES);
        }
        let escaped = BEFORE_SECCOMP[number].1(outside);
        return ExitCode::from(if escaped { ESCAPED } else { REFUSED });
    }
    cell.lock(&[virtio::jail::COMMON, allowed]).unwrap();
    if stage == "nothing" {
        return ExitCode::SUCCESS;
    }
    let escaped = BEHIND_SECCOMP[number].1(outside);
    ExitCode::from(if escaped { ESCAPED } else { REFUSED })
}

fn policy_of(name: &str, outside: &Outside) -> Policy {
    match name {
        "rng" => device_rng::policy(),
        "net" => device_net::policy(&Backend::Stream(UnixStream::pair().unwrap().0)),
        // The policy does not look at the file.
        "net-tap" => device_net::policy(&Backend::Tap(File::open("/dev/null").unwrap())),
        "block" => device_block::policy(),
        "vsock" => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = Path::new(&outside.path).with_file_name(HYBRID);
            device_vsock::policy(rustix::fs::openat(CWD, directory, flags, Mode::empty()).unwrap())
        }
        other => panic!("no policy {other}"),
    }
}

/// Makes every attempt on every policy; prints what went wrong.
fn try_all() -> ExitCode {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("testudo-breakout-{}", std::process::id());
    let _abstract =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    std::fs::create_dir(directory.path().join(HYBRID)).unwrap();
    let _socket = UnixListener::bind(&path).unwrap();
    let run = |policy: &str, stage: &str, number: usize| {
        let pid = std::process::id().to_string();
        let port = tcp.local_addr().unwrap().port().to_string();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args([
                "attempt",
                policy,
                stage,
                &number.to_string(),
                &pid,
                &port,
                &name,
            ])
            .arg(&path);
        child.stderr(std::process::Stdio::null());
        let status = child.status().unwrap();
        // Without namespaces there is no keeper, and the signal is seen as it is.
        status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
    };
    let mut wrong = Vec::new();
    let mut made = 0;
    for policy in POLICIES {
        let mut check = |what: &str, got: Option<i32>, wanted: &[i32]| {
            made += 1;
            if !got.is_some_and(|code| wanted.contains(&code)) {
                wrong.push(format!(
                    "{policy}: {what}: exit {got:?}, wanted one of {wanted:?}"
                ));
            }
        };
        check("do nothing", run(policy, "nothing", 0), &[0]);
        for (number, (what, _)) in BEFORE_SECCOMP.iter().enumerate() {
            let fine = [i32::from(REFUSED), i32::from(NO_NAMESPACES)];
            check(what, run(policy, "before", number), &fine);
        }
        for (number, (what, _)) in BEHIND_SECCOMP.iter().enumerate() {
            check(what, run(policy, "behind", number), &[KILLED]);
        }
    }
    println!(
        "{made} attempts on {} jails, {} went wrong",
        POLICIES.len(),
        wrong.len()
    );
    wrong.iter().for_each(|line| println!("{line}"));
    if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Returns whether `..` from descriptor `number` leads to a place with a file that can be opened.
fn opens_above(number: i32) -> bool {
    // SAFETY: the number is only used for calls that fail if it is not open, and never closed.
    let directory = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    rustix::fs::openat(
        &*directory,
        "../../../../../etc/passwd",
        OFlags::RDONLY,
        Mode::empty(),
    )
    .is_ok()
}

/// Makes a raw system call; a sixth argument is never needed.
fn call(number: libc::c_long, arguments: [usize; 5]) -> libc::c_long {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the attempts pass null pointers or constants, and the process ends right after.
    unsafe { libc::syscall(number, a, b, c, d, e) }
}
