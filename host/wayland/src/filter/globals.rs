//! The globals a guest may see, and up to which version. Everything else does not exist for it:
//! what is not compiled into wl-proxy can't even be named, and what is not in this table is
//! neither announced nor bound.

use wl_proxy::protocols::ObjectInterface as I;

use spec::windows::Policy;

/// What is allowed, with the highest version whose every request the filter knows.
const ALLOWED: &[(I, u32)] = &[
    (I::WlCompositor, 6),
    (I::WlSubcompositor, 1),
    (I::WlShm, 2),
    (I::WlSeat, 9),
    (I::WlOutput, 4),
    (I::WlDataDeviceManager, 3),
    (I::XdgWmBase, 6),
    (I::WpViewporter, 1),
    (I::WpFractionalScaleManagerV1, 1),
    (I::WpSinglePixelBufferManagerV1, 1),
    (I::WpCursorShapeManagerV1, 2),
    (I::ZxdgDecorationManagerV1, 1),
    (I::OrgKdeKwinServerDecorationManager, 1),
    (I::WpPresentation, 2),
    (I::ZwpPointerConstraintsV1, 1),
    (I::ZwpRelativePointerManagerV1, 1),
    (I::ZwpPointerGesturesV1, 3),
    (I::ZwpTabletManagerV2, 2),
    (I::ZwpIdleInhibitManagerV1, 1),
    (I::XdgActivationV1, 1),
    (I::ZwpTextInputManagerV3, 1),
    (I::ZwpPrimarySelectionDeviceManagerV1, 1),
    (I::XdgToplevelIconManagerV1, 1),
    (I::XdgWmDialogV1, 1),
    (I::XdgSystemBellV1, 1),
    (I::ZxdgOutputManagerV1, 3),
    (I::WpContentTypeManagerV1, 1),
    (I::WpAlphaModifierV1, 1),
    (I::WpTearingControlManagerV1, 1),
    (I::WpFifoManagerV1, 1),
    (I::XdgToplevelDragManagerV1, 1),
    (I::ZwpKeyboardShortcutsInhibitManagerV1, 1),
];

/// Returns the highest version of `interface` that a guest under `policy` may bind.
#[must_use]
pub(crate) fn cap(interface: I, policy: &Policy) -> Option<u32> {
    let denied = match interface {
        I::ZwpKeyboardShortcutsInhibitManagerV1 => !policy.shortcuts_inhibit,
        I::ZwpPrimarySelectionDeviceManagerV1 => !policy.clipboard.primary,
        _ => false,
    };
    let (_, version) = ALLOWED.iter().find(|(allowed, _)| *allowed == interface)?;
    (!denied).then_some(*version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_offered_the_protocols_of_a_modern_desktop() {
        assert!(ALLOWED.len() >= 30);
    }

    #[test]
    fn what_looks_at_or_drives_the_desktop_is_denied() {
        let policy = Policy {
            shortcuts_inhibit: true,
            ..Policy::default()
        };
        for denied in [
            I::WpSecurityContextManagerV1,
            I::ExtDataControlManagerV1,
            I::ZwlrDataControlManagerV1,
            I::XwaylandShellV1,
        ] {
            assert_eq!(cap(denied, &policy), None, "{}", denied.name());
        }
    }

    #[test]
    fn optional_protocols_follow_the_policy() {
        let mut policy = Policy::default();
        assert_eq!(cap(I::ZwpKeyboardShortcutsInhibitManagerV1, &policy), None);
        assert_eq!(cap(I::ZwpPrimarySelectionDeviceManagerV1, &policy), Some(1));
        policy.clipboard.primary = false;
        assert_eq!(cap(I::ZwpPrimarySelectionDeviceManagerV1, &policy), None);
    }
}
