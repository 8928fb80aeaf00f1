//! Becoming the window manager of an X server: the redirections, the selections and the properties by which
//! programs recognise one.

use x11rb::connection::Connection as _;
use x11rb::protocol::composite::{ConnectionExt as _, Redirect};
use x11rb::protocol::xfixes::ConnectionExt as _;
use x11rb::protocol::xproto::{
    AtomEnum, ChangeWindowAttributesAux, ConnectionExt as _, CreateWindowAux, EventMask, PropMode,
    WindowClass,
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
