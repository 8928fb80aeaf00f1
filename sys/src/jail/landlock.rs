//! Denies every file, TCP port, abstract socket and outside process a second time, by Landlock.
//!
//! The namespaces have taken all of these away already. Landlock still stands if a bug gives them back, and it is
//! the only such wall where user namespaces are forbidden.

use landlock::{
    ABI, Access, AccessFs, AccessNet, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};

use super::JailError;

/// The newest rules known here; an older kernel enforces those it has.
const NEWEST: ABI = ABI::V9;

/// Denies all that Landlock can; `sockets_in_root` still lets Unix sockets under `/` be connected to.
pub(super) fn deny_files(sockets_in_root: bool) -> Result<(), JailError> {
    let mut rules = Ruleset::default()
        .set_compatibility(landlock::CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(JailError::Landlock)?;
    if sockets_in_root {
        let root = PathFd::new(".").map_err(JailError::LandlockPath)?;
        rules = rules
            .add_rule(PathBeneath::new(root, AccessFs::ResolveUnix))
            .map_err(JailError::Landlock)?;
    }
    rules.restrict_self().map(drop).map_err(JailError::Landlock)
}
