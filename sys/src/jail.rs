//! The jail that a device daemon enters by itself, without root, right after it has taken its descriptors.
//!
//! A hostile guest that takes over a daemon shall find nothing but the daemon's own descriptors and the guest's
//! own memory. No single wall is trusted:
//!
//! ```text
//! isolate()  user, mount, pid, network, ipc, uts and cgroup namespaces   nothing has a name
//!            root = empty read-only tmpfs, or one directory              no path leads anywhere
//!            capabilities gone (bounding set too), no_new_privs          nothing can be regained
//!            resource limits                                             nothing can be exhausted
//! lock()     Landlock                                                    the same again, by another mechanism
//!            seccomp allow-list that kills                               little of the kernel can be reached
//! ```
//!
//! A pid namespace only holds children, so `isolate` forks: the caller goes on as pid 1 of the new namespace
//! and the original process stays outside as its *keeper*, which holds no descriptor but the log, waits, and
//! ends with the same status. It costs 90 KiB and tells a seccomp kill from a crash, which a dead daemon
//! cannot do for itself. See ADR 13.
//!
//! Where the kernel forbids unprivileged user namespaces, `isolate` says so ([`Walls::WithoutNamespaces`]) and
//! goes on with the walls that remain; [`support()`] tells it beforehand.

mod heap;
mod keeper;
mod landlock;
mod limits;
mod namespaces;
mod privileges;
mod root;
mod seccomp;
mod support;

use std::io;
use std::os::fd::OwnedFd;

use thiserror::Error;

pub use self::limits::Limits;
pub use self::seccomp::{Allowed, Argument};
pub use self::support::{Support, support};

/// What a process can still see under `/`.
#[derive(Debug)]
pub enum Root {
    /// Nothing, and nothing can be created.
    Empty,
    /// The sockets in this directory; it is read-only and shows no device, program or symbolic link.
    Sockets(OwnedFd),
}

/// What a daemon keeps of the world.
#[derive(Debug)]
pub struct Jail {
    /// What stays visible.
    pub root: Root,
    /// What it can use up.
    pub limits: Limits,
}

/// Which walls `isolate` could raise.
#[derive(Debug)]
pub enum Walls {
    /// All of them.
    Complete,
    /// The kernel refused namespaces, for this reason; the others stand.
    WithoutNamespaces(io::Error),
}

/// Why a jail could not be entered. The process must not go on.
#[derive(Debug, Error)]
pub enum JailError {
    /// A step of building the namespaces or the root failed after they had been granted.
    #[error("cannot {act} for the jail")]
    Build {
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Capabilities or `no_new_privs` could not be given up.
    #[error("cannot give up {what}")]
    GiveUp {
        /// What was to be given up.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A resource limit was refused.
    #[error("cannot limit {what}")]
    Limit {
        /// The resource.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The Landlock rule set was refused.
    #[error("cannot apply the Landlock rule set")]
    Landlock(#[source] ::landlock::RulesetError),
    /// The directory of sockets could not be named in the Landlock rule set.
    #[error("cannot name the root for Landlock")]
    LandlockPath(#[source] ::landlock::PathFdError),
    /// The allow-list could not be compiled.
    #[error("cannot compile the list of allowed system calls")]
    Compile(#[source] seccompiler::BackendError),
    /// The kernel refused the allow-list.
    #[error("cannot apply the list of allowed system calls")]
    Seccomp(#[source] seccompiler::Error),
}

/// A process inside its namespaces that has not yet given up its system calls.
#[derive(Debug)]
#[must_use = "a process is only jailed after lock()"]
pub struct Cell {
    sockets_in_root: bool,
    walls: Walls,
}

impl Jail {
    /// Leaves the host's namespaces, file system, capabilities and limits behind; returns in pid 1 of the jail.
    ///
    /// The calling process must have one thread. It never returns there when it becomes the keeper.
    ///
    /// # Errors
    /// A wall that the kernel offers could not be raised; the process must end.
    pub fn isolate(self) -> Result<Cell, JailError> {
        heap::share_one_arena();
        let sockets_in_root = matches!(self.root, Root::Sockets(_));
        let walls = match namespaces::enter(self.root)? {
            None => Walls::Complete,
            Some(refusal) => Walls::WithoutNamespaces(refusal),
        };
        self.limits.apply(matches!(walls, Walls::Complete))?;
        privileges::give_up()?;
        Ok(Cell {
            sockets_in_root,
            walls,
        })
    }
}

impl Cell {
    /// Returns which walls stand.
    #[must_use]
    pub fn walls(&self) -> &Walls {
        &self.walls
    }

    /// Gives up the file system a second time and every system call that `allowed` does not list.
    ///
    /// # Errors
    /// The kernel refused; the process must end.
    pub fn lock(self, allowed: &[&[Allowed]]) -> Result<(), JailError> {
        landlock::deny_files(self.sockets_in_root)?;
        seccomp::allow_only(allowed)
    }
}
