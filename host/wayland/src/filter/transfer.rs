//! The decision about one transfer of the clipboard, the primary selection or a drag, and its audit line.

use wayland::pipes::Transfer;

use super::Context;
use crate::vm::Vm;
use spec::windows::{Direction, Mode};

/// The longest type name that is looked at. Registered names have at most 127 characters on
/// each side of the slash (RFC 6838 §4.2).
pub(super) const MAX_MIME_LEN: usize = 255;

impl Context {
    /// Calls `go` once and if data of type `mime` may go in `direction`.
    pub fn transfer(&self, direction: Direction, mime: &str, go: impl FnOnce() + 'static) {
        let vm = &self.vm;
        if mime.len() > MAX_MIME_LEN || !vm.policy.clipboard.allows(mime) {
            return audit(vm, direction, mime, "denied: type");
        }
        match vm.mode(direction) {
            Mode::Off => audit(vm, direction, mime, "denied: off"),
            Mode::OnFocus => {
                audit(vm, direction, mime, "allowed");
                go();
            }
            Mode::Explicit if vm.asks.borrow_mut().use_grant(direction) => {
                audit(vm, direction, mime, "allowed: granted");
                go();
            }
            Mode::Explicit => audit(vm, direction, mime, "denied: not granted"),
            Mode::Ask => {
                let (vm, name) = (vm.clone(), mime.to_owned());
                let then = move |allow| {
                    audit(
                        &vm,
                        direction,
                        &name,
                        if allow {
                            "allowed: asked"
                        } else {
                            "denied: asked"
                        },
                    );
                    if allow {
                        go();
                    }
                };
                self.vm
                    .asks
                    .borrow_mut()
                    .ask(direction, mime, Box::new(then));
            }
        }
    }

    /// Returns whether the guest may be told that the host, or the other way round, has data of
    /// type `mime`.
    pub fn may_offer(&self, direction: Direction, mime: &str) -> bool {
        mime.len() <= MAX_MIME_LEN
            && self.vm.mode(direction) != Mode::Off
            && self.vm.policy.clipboard.allows(mime)
    }
}

fn audit(vm: &Vm, direction: Direction, mime: &str, verdict: &str) {
    let direction = name(direction);
    tracing::info!(target: "audit", vm = vm.name, direction, mime, verdict, "clipboard");
}

/// Writes the audit line of a transfer that has ended.
pub fn audit_end(vm: &Vm, transfer: Transfer) {
    let direction = if transfer.outward {
        Direction::ToGuest
    } else {
        Direction::ToHost
    };
    let direction = name(direction);
    let Transfer { bytes, cut, .. } = transfer;
    tracing::info!(target: "audit", vm = vm.name, direction, bytes, cut, "clipboard transfer ended");
}

/// Returns the direction's name in audit lines.
fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::ToGuest => "to-guest",
        Direction::ToHost => "to-host",
    }
}
