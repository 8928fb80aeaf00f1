//! Starts a session's command: in the VM directly, in a container by way of a process that enters its namespaces.
//!
//! ```text
//! session ─ fork ─ entering: control group, namespaces ─ fork ─ command: terminal, ids, directory, exec
//! ```
//! The process between ends at once and the session, being a subreaper, becomes the command's parent. Nothing of
//! ours stays inside the container. What fails on the way comes back through a pipe that `exec` closes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, WaitOptions, getuid, ioctl_tiocsctty, pidfd_open, set_child_subreaper, setsid,
    waitpid,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{
    ThreadNameSpaceType, move_into_thread_name_spaces, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use sys::process::{Forked, fork, reset_signals};
use wire::proto::VshStarted;
use wire::{Fault, Kind};

use super::target::{Directory, Target};
use super::terminal::{self, Terminal};
use crate::container::Live;
use crate::fault::OrFault;

/// The group inside the container's own that sessions live in. systemd lets be what is not named like a unit,
/// and processes may not stand in a group that has others below it (cgroup-v2.rst, "No Internal Process").
const GROUP: &str = ".testudo";

/// What the fork left this process as.
#[derive(Debug)]
pub(super) enum Launch {
    /// The session; the command runs.
    Running(Running),
    /// A process on the way to the command that is done, or failed and has said so.
    Child(ExitCode),
}

/// A command that was started.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) streams: Streams,
}

/// Our ends of the command's standard streams.
#[derive(Debug)]
pub(super) enum Streams {
    Terminal(OwnedFd),
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    },
}

impl Running {
    pub(super) fn started(&self) -> VshStarted {
        VshStarted {
            pid: self.pid.as_raw_pid().unsigned_abs(),
        }
    }
}

/// The command's ends of its standard streams.
enum Ends {
    Terminal(OwnedFd),
    Pipes([OwnedFd; 3]),
}

/// Steps that can fail after the fork; their numbers travel through the pipe. 0 announces the command's pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Pid = 0,
    Enter = 1,
    Terminal = 2,
    Ids = 3,
    Directory = 4,
    Exec = 5,
}

/// Starts `target`.
pub(super) fn launch(target: &Target) -> Result<Launch, Fault> {
    let message = || format!("cannot start {}", target.program);
    let (streams, ends) = streams(target).or_fault("E-SESSION", message)?;
    let group = match &target.container {
        Some((live, first_id)) => Some(group(live, *first_id).or_fault("E-SESSION", message)?),
        None => None,
    };
    let (report, said) = pipe_with(PipeFlags::CLOEXEC).or_fault("E-SESSION", message)?;
    set_child_subreaper(Some(Pid::INIT)).or_fault("E-SESSION", message)?;
    let said = File::from(said);
    match fork().or_fault("E-SESSION", message)? {
        Forked::Child => {
            drop(report);
            Ok(Launch::Child(child(target, group, ends, said)))
        }
        Forked::Parent(first) => {
            drop((said, ends));
            let pid = wait_started(target, report, first)?;
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).or_fault("E-SESSION", message)?;
            Ok(Launch::Running(Running {
                pid,
                pidfd,
                streams,
            }))
        }
    }
}

/// Waits until the command is being executed; returns its process, which is a child of this one by then.
fn wait_started(target: &Target, report: OwnedFd, first: Pid) -> Result<Pid, Fault> {
    let mut pid = first;
    let mut record = [0; 8];
    let mut report = File::from(report);
    let mut failed = None;
    while report.read_exact(&mut record).is_ok() {
        let [step, value] = [&record[..4], &record[4..]]
            .map(|half| i32::from_ne_bytes(half.try_into().expect("half of eight bytes")));
        match Pid::from_raw(value) {
            Some(announced) if step == Step::Pid as i32 => pid = announced,
            _ => failed = Some((step, io::Error::from_raw_os_error(value))),
        }
    }
    if pid != first {
        // The process between has nothing more to do; once it is gone the command is ours.
        let _ = waitpid(Some(first), WaitOptions::empty());
    }
    match failed {
        Some((step, error)) => {
            let _ = waitpid(Some(pid), WaitOptions::empty());
            Err(refusal(target, step, &error))
        }
        None => Ok(pid),
    }
}

fn refusal(target: &Target, step: i32, error: &io::Error) -> Fault {
    let program = &target.program;
    let fault = if step == Step::Exec as i32 {
        match error.kind() {
            io::ErrorKind::NotFound => Fault::new(
                Kind::NotFound,
                "E-COMMAND-NOT-FOUND",
                format!("there is no command {program:?}"),
            ),
            _ => Fault::new(
                Kind::Denied,
                "E-COMMAND-DENIED",
                format!("command {program:?} cannot be executed"),
            ),
        }
    } else if step == Step::Directory as i32 {
        let directory = match &target.directory {
            Directory::Wanted(path) | Directory::Home(path) => path,
        };
        let message = format!("cannot start {program} in directory {directory:?}");
        Fault::new(Kind::NotFound, "E-COMMAND-DIRECTORY", message)
    } else {
        let act = match step {
            s if s == Step::Enter as i32 => "enter the container",
            s if s == Step::Terminal as i32 => "take the terminal",
            _ => "become the user",
        };
        Fault::new(
            Kind::Internal,
            "E-SESSION",
            format!("cannot {act} for {program}"),
        )
    };
    fault.because(error)
}

fn streams(target: &Target) -> io::Result<(Streams, Ends)> {
    let Some(window) = target.window else {
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let ((stdin, ours_in), (ours_out, stdout), (ours_err, stderr)) =
            (pipe()?, pipe()?, pipe()?);
        for fd in [&ours_in, &ours_out, &ours_err] {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        let streams = Streams::Pipes {
            stdin: Some(ours_in),
            stdout: Some(ours_out),
            stderr: Some(ours_err),
        };
        return Ok((streams, Ends::Pipes([stdin, stdout, stderr])));
    };
    let terminal = match &target.container {
        Some((live, first_id)) => Terminal::in_container(&live.root(), first_id + target.uid)?,
        None => Terminal::in_vm()?,
    };
    terminal::resize(&terminal.master, window)?;
    Ok((
        Streams::Terminal(terminal.master),
        Ends::Terminal(terminal.slave),
    ))
}

/// Opens the group that sessions of the container live in, made with the first of them.
pub(super) fn group(live: &Live, first_id: u32) -> io::Result<File> {
    let path = live.cgroup().join(GROUP);
    match std::fs::create_dir(&path) {
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw(first_id), Gid::from_raw(first_id));
            for part in [
                "",
                "cgroup.procs",
                "cgroup.threads",
                "cgroup.subtree_control",
            ] {
                chownat(CWD, path.join(part), Some(uid), Some(gid), AtFlags::empty())?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    File::options().write(true).open(path.join("cgroup.procs"))
}

/// Goes on in the new process; returns in it, and in the one that it forks, only to end it.
fn child(target: &Target, group: Option<File>, ends: Ends, mut report: File) -> ExitCode {
    let Some((live, _)) = &target.container else {
        return command(target, ends, &mut report);
    };
    let entered = enter(live, group).and_then(|()| fork());
    match entered {
        Ok(Forked::Child) => command(target, ends, &mut report),
        Ok(Forked::Parent(command)) => {
            say(&mut report, Step::Pid, command.as_raw_pid());
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(
                &mut report,
                Step::Enter,
                error.raw_os_error().unwrap_or_default(),
            );
            ExitCode::FAILURE
        }
    }
}

/// Joins the container's control group and namespaces; the next process that is forked is inside altogether.
pub(super) fn enter(live: &Live, group: Option<File>) -> io::Result<()> {
    if let Some(mut group) = group {
        group.write_all(b"0")?;
    }
    let all = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(live.init().as_fd(), all).map_err(Into::into)
}

/// Becomes the command. Returns only when that failed.
fn command(target: &Target, ends: Ends, report: &mut File) -> ExitCode {
    let steps: [(Step, &dyn Fn() -> io::Result<()>); 3] = [
        (Step::Terminal, &|| attach(&ends)),
        (Step::Ids, &|| become_user(target)),
        (Step::Directory, &|| enter_directory(&target.directory)),
    ];
    for (step, act) in steps {
        if let Err(error) = act() {
            say(report, step, error.raw_os_error().unwrap_or_default());
            return ExitCode::FAILURE;
        }
    }
    drop(ends);
    reset_signals();
    let error = Command::new(&target.program)
        .arg0(&target.words[0])
        .args(&target.words[1..])
        .env_clear()
        .envs(&target.environment)
        .exec();
    say(report, Step::Exec, error.raw_os_error().unwrap_or_default());
    ExitCode::FAILURE
}

/// Makes the streams the process's own, a terminal its controlling one.
fn attach(ends: &Ends) -> io::Result<()> {
    setsid()?;
    let [stdin, stdout, stderr] = match ends {
        Ends::Terminal(terminal) => {
            ioctl_tiocsctty(terminal)?;
            [terminal; 3]
        }
        Ends::Pipes([stdin, stdout, stderr]) => [stdin, stdout, stderr],
    };
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr).map_err(Into::into)
}

/// Becomes the user, by way of the container's root: only from there does the kernel take away the rights that
/// came with entering.
fn become_user(target: &Target) -> io::Result<()> {
    if target.container.is_none() && getuid().as_raw() == target.uid {
        return Ok(());
    }
    become_account((0, 0), &target.groups)?;
    become_account((target.uid, target.gid), &target.groups)
}

/// Takes on the ids of an account; only root may, and of the container only its own.
pub(super) fn become_account((uid, gid): (u32, u32), groups: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn enter_directory(directory: &Directory) -> io::Result<()> {
    let entered = match directory {
        Directory::Wanted(path) => rustix::process::chdir(path.as_str()),
        Directory::Home(path) => {
            rustix::process::chdir(path.as_str()).or_else(|_: Errno| rustix::process::chdir("/"))
        }
    };
    entered.map_err(Into::into)
}

/// Tells the session. If that fails it is gone, and so is everyone who could be told.
fn say(report: &mut File, step: Step, value: i32) {
    let mut record = [0; 8];
    record[..4].copy_from_slice(&(step as i32).to_ne_bytes());
    record[4..].copy_from_slice(&value.to_ne_bytes());
    let _ = report.write_all(&record);
}
