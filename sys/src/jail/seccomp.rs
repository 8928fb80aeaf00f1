//! Kills the process at the first system call that its list does not have.

use std::collections::BTreeMap;

use libc::{SYS_mmap, SYS_mprotect};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::JailError;

/// One line of a list: a system call, and for some with what arguments.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// The number (`libc::SYS_…`).
    call: libc::c_long,
    /// What one argument must be; anything when absent.
    argument: Option<Argument>,
}

/// What the argument at one position must be.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Counted from 0.
    pub position: u8,
    /// The bits that are looked at.
    pub mask: u64,
    /// What they must be.
    pub value: u64,
}

impl Allowed {
    /// Allows `call` with any arguments.
    #[must_use]
    pub const fn call(call: libc::c_long) -> Self {
        Self {
            call,
            argument: None,
        }
    }

    /// Allows `call` if its argument at `position` equals `value`; several lines add up.
    #[must_use]
    pub const fn with(call: libc::c_long, position: u8, value: u64) -> Self {
        // Every argument compared so far is an int, of which the kernel ignores the upper half.
        Self {
            call,
            argument: Some(Argument {
                position,
                mask: u32::MAX as u64,
                value,
            }),
        }
    }

    /// Allows `call` if the bits of `mask` in its argument at `position` are those of `value`; several lines add up.
    #[must_use]
    pub const fn masked(call: libc::c_long, position: u8, mask: u64, value: u64) -> Self {
        Self {
            call,
            argument: Some(Argument {
                position,
                mask,
                value,
            }),
        }
    }

    /// Allows memory to be mapped, but never memory that can be executed.
    #[must_use]
    pub const fn mapping(call: libc::c_long) -> Self {
        Self {
            call,
            argument: Some(Argument {
                position: 2,
                mask: libc::PROT_EXEC as u64,
                value: 0,
            }),
        }
    }

    /// Returns the condition as a rule; none is a rule that always matches.
    fn rule(self) -> Result<Option<SeccompRule>, seccompiler::BackendError> {
        let Some(Argument {
            position,
            mask,
            value,
        }) = self.argument
        else {
            return Ok(None);
        };
        let compare = SeccompCmpOp::MaskedEq(mask);
        let condition = SeccompCondition::new(position, SeccompCmpArgLen::Qword, compare, value)?;
        SeccompRule::new(vec![condition]).map(Some)
    }
}

/// Lets only the calls in `lists` through from now on, in this thread and those it starts.
pub(super) fn allow_only(lists: &[&[Allowed]]) -> Result<(), JailError> {
    let program = compile(lists).map_err(JailError::Compile)?;
    seccompiler::apply_filter(&program).map_err(JailError::Seccomp)
}

/// Turns the lists into the program the kernel runs at each system call.
fn compile(lists: &[&[Allowed]]) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for allowed in lists.iter().copied().flatten() {
        assert!(
            allowed.argument.is_some() || ![SYS_mmap, SYS_mprotect].contains(&allowed.call),
            "a jail never lets memory become executable"
        );
        let chain = rules.entry(allowed.call).or_default();
        chain.extend(allowed.rule()?);
    }
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let kill = SeccompAction::KillProcess;
    SeccompFilter::new(rules, kill, SeccompAction::Allow, architecture)?.try_into()
}
