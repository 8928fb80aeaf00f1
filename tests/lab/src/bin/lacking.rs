//! Starts a program for which KVM lacks a capability: `lab-lacking CAPABILITY PROGRAM ARGUMENTS`. A filter of system
//! calls answers the question for that capability with no; all else is real.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// `KVM_CHECK_EXTENSION` (linux/kvm.h).
const CHECK_EXTENSION: u64 = 0xae03;

fn main() -> Result<()> {
    let mut words = std::env::args_os().skip(1);
    let capability = words.next().context("no capability")?;
    let capability = capability.to_str().and_then(|text| text.parse().ok());
    hide(capability.context("the capability is no number")?)?;
    let mut command = Command::new(words.next().context("no program")?);
    Err(command.args(words).exec()).context("cannot start the program")
}

fn hide(capability: u64) -> Result<()> {
    let is = |argument, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let question = SeccompRule::new(vec![is(1, CHECK_EXTENSION)?, is(2, capability)?])?;
    // An error without a number is the answer 0.
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_ioctl, vec![question])]),
        SeccompAction::Allow,
        SeccompAction::Errno(0),
        TargetArch::x86_64,
    )?;
    let program = BpfProgram::try_from(filter)?;
    seccompiler::apply_filter(&program).context("cannot apply the filter")
}
