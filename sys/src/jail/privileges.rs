//! Gives up every capability for good, inside the jail.

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::JailError;

/// Empties all capability sets, the bounding set included, and sets `no_new_privs`.
pub(super) fn give_up() -> Result<(), JailError> {
    let failed = |what| {
        move |errno: rustix::io::Errno| JailError::GiveUp {
            what,
            source: errno.into(),
        }
    };
    empty_bounding_set().map_err(failed("the capability bounding set"))?;
    clear_ambient_capability_set().map_err(failed("ambient capabilities"))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(failed("capabilities"))?;
    set_no_new_privs(true).map_err(failed("new privileges"))
}

/// Takes out capabilities up to the last one this kernel knows.
///
/// Without CAP_SETPCAP (an ordinary user outside a user namespace) there is nothing to give up: the process
/// has no capability, and `no_new_privs` keeps the bounding set from ever mattering.
fn empty_bounding_set() -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
