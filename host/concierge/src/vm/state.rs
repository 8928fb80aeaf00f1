//! What a VM is doing and what each request does to it: pure, so that it can be tested exhaustively. Host side.
//!
//! [`State`] is computed from what is there (work under way, a living engine, a disk folder) and kept nowhere;
//! the drawing is in the parent module.

/// What a VM is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// There is no such VM.
    Absent,
    /// Its disk is there, nothing runs.
    Stopped,
    /// An engine is being brought up.
    Starting,
    /// The guest answered and is configured.
    Running,
    /// The guest is asked to end.
    Stopping,
    /// Its machine is written into a file, and ends then.
    Saving,
    /// Its disk is being created, grown, exported, imported or destroyed; nothing runs.
    DiskBusy,
    /// It runs, and its disk is grown or its settings are changed.
    Changing,
}

/// What is asked of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    /// Make it.
    Create,
    /// Make it from an exported file.
    Import,
    /// Bring it up.
    Start {
        /// Also when it does not exist.
        create: bool,
    },
    /// Put it into a file.
    Save,
    /// End it politely.
    Stop,
    /// End it at once.
    Kill,
    /// Remove it with its disk.
    Destroy {
        /// Also when it runs.
        force: bool,
    },
    /// Grow its disk.
    Resize,
    /// Write it to a file.
    Export,
    /// Change what the next start uses.
    Set,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// Work begins; until it ends, the VM is in this state.
    Begin(State),
    /// The same work is under way: share its events and its outcome.
    Join,
    /// It is so already.
    Nothing,
    /// What is under way, engine included, is ended at once; then the request is looked at again.
    Abort,
    /// The request is looked at again when the work under way has ended.
    Later,
    /// Not now, or not at all.
    Refuse(Refusal),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such VM.
    NotFound,
    /// There is one already.
    Exists,
    /// It has to be stopped first.
    Runs,
    /// It does not run.
    Stopped,
    /// Its disk is in use by other work.
    Busy,
}

impl State {
    /// Returns the state of a VM with no work under way.
    pub(crate) fn settled(engine_lives: bool, disk_exists: bool) -> Self {
        match (engine_lives, disk_exists) {
            (true, _) => Self::Running,
            (false, true) => Self::Stopped,
            (false, false) => Self::Absent,
        }
    }

    /// Returns what `verb` does in this state.
    pub(crate) fn react(self, verb: Verb) -> Reaction {
        match self {
            Self::Absent => when_absent(verb),
            Self::Stopped => when_stopped(verb),
            Self::Starting => when_starting(verb),
            Self::Running => when_running(verb),
            Self::Stopping => when_stopping(verb),
            Self::Saving => when_saving(verb),
            Self::DiskBusy => when_disk_busy(verb),
            Self::Changing => when_changing(verb),
        }
    }
}

fn when_absent(verb: Verb) -> Reaction {
    match verb {
        Verb::Create | Verb::Import => Reaction::Begin(State::DiskBusy),
        Verb::Start { create: true } => Reaction::Begin(State::Starting),
        _ => Reaction::Refuse(Refusal::NotFound),
    }
}

fn when_stopped(verb: Verb) -> Reaction {
    match verb {
        Verb::Create | Verb::Import => Reaction::Refuse(Refusal::Exists),
        Verb::Start { .. } => Reaction::Begin(State::Starting),
        Verb::Stop | Verb::Kill => Reaction::Nothing,
        Verb::Save => Reaction::Refuse(Refusal::Stopped),
        Verb::Destroy { .. } | Verb::Resize | Verb::Export | Verb::Set => {
            Reaction::Begin(State::DiskBusy)
        }
    }
}

fn when_starting(verb: Verb) -> Reaction {
    match verb {
        Verb::Create | Verb::Import => Reaction::Refuse(Refusal::Exists),
        Verb::Start { .. } => Reaction::Join,
        Verb::Stop | Verb::Kill | Verb::Destroy { force: true } => Reaction::Abort,
        Verb::Destroy { force: false } | Verb::Export => Reaction::Refuse(Refusal::Runs),
        Verb::Resize | Verb::Set | Verb::Save => Reaction::Later,
    }
}

fn when_running(verb: Verb) -> Reaction {
    match verb {
        Verb::Create | Verb::Import => Reaction::Refuse(Refusal::Exists),
        Verb::Start { .. } => Reaction::Nothing,
        Verb::Stop => Reaction::Begin(State::Stopping),
        Verb::Save => Reaction::Begin(State::Saving),
        Verb::Kill | Verb::Destroy { force: true } => Reaction::Abort,
        Verb::Destroy { force: false } | Verb::Export => Reaction::Refuse(Refusal::Runs),
        Verb::Resize | Verb::Set => Reaction::Begin(State::Changing),
    }
}

fn when_stopping(verb: Verb) -> Reaction {
    match verb {
        Verb::Create | Verb::Import => Reaction::Refuse(Refusal::Exists),
        Verb::Stop => Reaction::Join,
        Verb::Kill | Verb::Destroy { force: true } => Reaction::Abort,
        _ => Reaction::Later,
    }
}

fn when_saving(verb: Verb) -> Reaction {
    match verb {
        Verb::Create | Verb::Import => Reaction::Refuse(Refusal::Exists),
        Verb::Save => Reaction::Join,
        Verb::Kill | Verb::Destroy { force: true } => Reaction::Abort,
        _ => Reaction::Later,
    }
}

fn when_disk_busy(verb: Verb) -> Reaction {
    match verb {
        Verb::Stop | Verb::Kill => Reaction::Nothing,
        Verb::Save => Reaction::Refuse(Refusal::Stopped),
        Verb::Destroy { force: true } => Reaction::Abort,
        _ => Reaction::Refuse(Refusal::Busy),
    }
}

fn when_changing(verb: Verb) -> Reaction {
    match verb {
        Verb::Create | Verb::Import => Reaction::Refuse(Refusal::Exists),
        Verb::Start { .. } => Reaction::Nothing,
        Verb::Stop | Verb::Save | Verb::Resize | Verb::Set => Reaction::Later,
        Verb::Kill | Verb::Destroy { force: true } => Reaction::Abort,
        Verb::Destroy { force: false } | Verb::Export => Reaction::Refuse(Refusal::Runs),
    }
}

#[cfg(test)]
mod tests;
