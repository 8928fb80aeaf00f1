//! Limits what a daemon can use up, inside the jail.

use rustix::process::{Resource, Rlimit, setrlimit};

use super::JailError;

/// What a daemon can use up.
///
/// The address space is not limited: guest memory is mapped into it, and its size is the front end's to say.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open descriptors; never raised above what the parent allows.
    pub descriptors: u64,
    /// Threads at any time, beside the first.
    pub threads: u64,
}

impl Limits {
    /// Applies the limits for good: the hard limits fall too.
    ///
    /// The kernel counts tasks by user, in a namespace of one's own only those inside: the daemon's threads and its
    /// keeper. Outside, everything the user runs counts, so only "none" can be said there.
    pub(super) fn apply(self, own_namespaces: bool) -> Result<(), JailError> {
        let inherited = rustix::process::getrlimit(Resource::Nofile).maximum;
        let descriptors = inherited.map_or(self.descriptors, |most| most.min(self.descriptors));
        limit(Resource::Nofile, descriptors, "open descriptors")?;
        // A core file would hold the guest's memory.
        limit(Resource::Core, 0, "core files")?;
        match (self.threads, own_namespaces) {
            (0, _) => limit(Resource::Nproc, 0, "processes")?,
            (threads, true) => limit(Resource::Nproc, threads + 2, "threads")?,
            (_, false) => {}
        }
        limit(Resource::Msgqueue, 0, "message queues")
    }
}

/// Sets the soft and hard limit of one resource.
fn limit(resource: Resource, most: u64, what: &'static str) -> Result<(), JailError> {
    let both = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, both).map_err(|errno| JailError::Limit {
        what,
        source: errno.into(),
    })
}
