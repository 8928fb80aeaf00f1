//! Names of data types: X has targets, Wayland has MIME types, and text has several names in both.

use x11rb::protocol::xproto::{Atom, ConnectionExt as _};
use x11rb::rust_connection::RustConnection;

use super::XwmError;
use super::atoms::Atoms;

/// The most types of one selection, as on the host.
pub(super) const MAX_TYPES: usize = 128;

/// Returns the Wayland types for X targets, each with the target to ask for.
pub(super) fn types_of(x: &RustConnection, atoms: &Atoms, targets: &[Atom]) -> Vec<(String, Atom)> {
    let mut types: Vec<(String, Atom)> = Vec::new();
    for target in targets.iter().take(MAX_TYPES) {
        if let Ok(Some(mime_type)) = mime_of(x, atoms, *target)
            && !types.iter().any(|(known, _)| *known == mime_type)
        {
            types.push((mime_type, *target));
        }
    }
    types
}

/// Returns the Wayland type that an X target stands for.
pub(super) fn mime_of(
    x: &RustConnection,
    atoms: &Atoms,
    target: Atom,
) -> Result<Option<String>, XwmError> {
    if target == atoms.UTF8_STRING {
        return Ok(Some("text/plain;charset=utf-8".to_owned()));
    }
    if target == atoms.STRING || target == atoms.TEXT {
        return Ok(Some("text/plain".to_owned()));
    }
    let name = x
        .get_atom_name(target)?
        .reply()
        .map(|reply| reply.name)
        .unwrap_or_default();
    Ok(String::from_utf8(name)
        .ok()
        .filter(|name| name.contains('/')))
}

/// Returns the X targets that a Wayland type stands for.
pub(super) fn atoms_of(
    x: &RustConnection,
    atoms: &Atoms,
    mime_type: &str,
) -> Result<Vec<Atom>, XwmError> {
    let mut list = match mime_type {
        "text/plain;charset=utf-8" | "UTF8_STRING" => vec![atoms.UTF8_STRING],
        "text/plain" | "STRING" | "TEXT" => vec![atoms.UTF8_STRING, atoms.STRING, atoms.TEXT],
        _ => Vec::new(),
    };
    if mime_type.contains('/') {
        list.push(x.intern_atom(false, mime_type.as_bytes())?.reply()?.atom);
    }
    Ok(list)
}
