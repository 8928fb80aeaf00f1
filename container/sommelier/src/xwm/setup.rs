//! Becoming the window manager of an X server: the redirections, the selections and the properties by which
//! programs recognise one.

use x11rb::connection::Connection as _;
use x11rb::protocol::composite::{ConnectionExt as _, Redirect};
use x11rb::protocol::xfixes::ConnectionExt as _;
use x11rb::protocol::xproto::{
    AtomEnum, ChangeWindowAttributesAux, ClientMessageEvent, ConnectionExt as _, CreateWindowAux,
    EventMask, PropMode, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;
use x11rb::{COPY_DEPTH_FROM_PARENT, COPY_FROM_PARENT, CURRENT_TIME};

use super::XwmError;
use super::atoms::Atoms;
use super::bridge::WindowId;

/// The name under which programs know this manager.
const NAME: &str = "Sommelier";

/// Takes over the windows under `root` and returns the manager's own window.
///
/// # Errors
/// When another manager is there.
pub(crate) fn take_over(
    x: &RustConnection,
    atoms: &Atoms,
    root: WindowId,
    scale: f64,
) -> Result<WindowId, XwmError> {
    x.xfixes_query_version(5, 0)?.reply()?;
    x.composite_query_version(0, 4)?.reply()?;
    let mask = EventMask::SUBSTRUCTURE_NOTIFY
        | EventMask::SUBSTRUCTURE_REDIRECT
        | EventMask::PROPERTY_CHANGE;
    let attributes = ChangeWindowAttributesAux::new().event_mask(mask);
    x.change_window_attributes(root, &attributes)?.check()?;
    // Each window gets pixels of its own, which is what a rootless Xwayland shows.
    x.composite_redirect_subwindows(root, Redirect::MANUAL)?
        .check()?;
    let manager = hidden_window(x, root)?;
    for selection in [atoms.WM_S0, atoms._NET_WM_CM_S0] {
        x.set_selection_owner(manager, selection, CURRENT_TIME)?;
    }
    announce(x, atoms, root, manager)?;
    tell_scale(x, atoms, (root, manager), scale)?;
    x.flush()?;
    Ok(manager)
}

/// Makes a window that is never seen.
///
/// # Errors
/// When the server is out of numbers.
pub(crate) fn hidden_window(x: &RustConnection, root: WindowId) -> Result<WindowId, XwmError> {
    let window = x.generate_id()?;
    let attributes = CreateWindowAux::new().event_mask(EventMask::PROPERTY_CHANGE);
    x.create_window(
        COPY_DEPTH_FROM_PARENT,
        window,
        root,
        0,
        0,
        1,
        1,
        0,
        WindowClass::INPUT_OUTPUT,
        COPY_FROM_PARENT,
        &attributes,
    )?;
    Ok(window)
}

fn announce(
    x: &RustConnection,
    atoms: &Atoms,
    root: WindowId,
    manager: WindowId,
) -> Result<(), XwmError> {
    for window in [root, manager] {
        let check = atoms._NET_SUPPORTING_WM_CHECK;
        x.change_property32(
            PropMode::REPLACE,
            window,
            check,
            AtomEnum::WINDOW,
            &[manager],
        )?;
    }
    let (name, utf8) = (atoms._NET_WM_NAME, atoms.UTF8_STRING);
    x.change_property8(PropMode::REPLACE, manager, name, utf8, NAME.as_bytes())?;
    let supported = [
        atoms._NET_SUPPORTED,
        atoms._NET_SUPPORTING_WM_CHECK,
        atoms._NET_CLIENT_LIST,
        atoms._NET_ACTIVE_WINDOW,
        atoms._NET_WM_NAME,
        atoms._NET_WM_STATE,
        atoms._NET_WM_STATE_MODAL,
        atoms._NET_WM_STATE_FULLSCREEN,
        atoms._NET_WM_STATE_MAXIMIZED_VERT,
        atoms._NET_WM_STATE_MAXIMIZED_HORZ,
        atoms._NET_WM_STATE_FOCUSED,
        atoms._NET_WM_MOVERESIZE,
        atoms._NET_WM_WINDOW_TYPE,
        atoms._GTK_FRAME_EXTENTS,
    ];
    let property = atoms._NET_SUPPORTED;
    x.change_property32(
        PropMode::REPLACE,
        root,
        property,
        AtomEnum::ATOM,
        &supported,
    )?;
    Ok(())
}

/// Tells programs how many pixels an inch has: by XSETTINGS, which GTK reads, and by the resource database, which
/// Qt, Xft and the old toolkits read.
fn tell_scale(
    x: &RustConnection,
    atoms: &Atoms,
    (root, manager): (WindowId, WindowId),
    scale: f64,
) -> Result<(), XwmError> {
    let resources = format!("Xft.dpi:\t{}\n", dpi(scale));
    let (property, string) = (atoms.RESOURCE_MANAGER, AtomEnum::STRING);
    x.change_property8(
        PropMode::REPLACE,
        root,
        property,
        string,
        resources.as_bytes(),
    )?;
    let settings = xsettings(scale);
    let property = atoms._XSETTINGS_SETTINGS;
    x.change_property8(PropMode::REPLACE, manager, property, property, &settings)?;
    x.set_selection_owner(manager, atoms._XSETTINGS_S0, CURRENT_TIME)?;
    let data = [CURRENT_TIME, atoms._XSETTINGS_S0, manager, 0, 0];
    let event = ClientMessageEvent::new(32, root, atoms.MANAGER, data);
    x.send_event(false, root, EventMask::STRUCTURE_NOTIFY, event)?;
    Ok(())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "scales are between 0.25 and 8"
)]
fn dpi(scale: f64) -> i32 {
    (96.0 * scale).round() as i32
}

/// Returns the settings in the format of the XSETTINGS specification 0.5: little endian, all integers.
fn xsettings(scale: f64) -> Vec<u8> {
    // GTK 3 enlarges by whole numbers, and makes up the rest with its fonts.
    let whole = dpi(scale).div_euclid(96).max(1);
    let settings = [
        ("Gdk/UnscaledDPI", dpi(scale) * 1024 / whole),
        ("Gdk/WindowScalingFactor", whole),
        ("Xft/DPI", dpi(scale) * 1024),
    ];
    let mut out = vec![0, 0, 0, 0];
    out.extend(1u32.to_le_bytes());
    out.extend(u32::try_from(settings.len()).expect("three").to_le_bytes());
    for (name, value) in settings {
        let len = u16::try_from(name.len()).expect("short names");
        out.extend([0, 0]);
        out.extend(len.to_le_bytes());
        out.extend(name.as_bytes());
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(1u32.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_say_whole_factors_and_the_rest_as_dpi() {
        let settings = xsettings(1.5);
        let value = |name: &str| {
            let at = settings
                .windows(name.len())
                .position(|part| part == name.as_bytes())
                .unwrap();
            let at = (at + name.len()).next_multiple_of(4) + 4;
            i32::from_le_bytes(settings[at..at + 4].try_into().unwrap())
        };
        assert_eq!(value("Gdk/WindowScalingFactor"), 1);
        assert_eq!(value("Xft/DPI"), 144 * 1024);
        assert_eq!(value("Gdk/UnscaledDPI"), 144 * 1024);
        assert_eq!(settings.len() % 4, 0);
    }
}
