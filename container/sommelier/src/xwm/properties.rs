//! What an X window says of itself: titles, classes, sizes, kinds. All of it comes from programs of the
//! container, so whatever can't be understood is as if it were absent.

use x11rb::properties::{WmClass, WmHints, WmSizeHints};
use x11rb::protocol::xproto::{Atom, AtomEnum, ConnectionExt as _};
use x11rb::rust_connection::RustConnection;

use super::atoms::Atoms;
use super::bridge::WindowId;

/// The most words read of any property here; titles are cut by the host anyway.
const MAX_WORDS: u32 = 1024;

/// What is known of a window.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a property of its own in X"
)]
pub(crate) struct Properties {
    /// Its title.
    pub(crate) title: String,
    /// The name of its program, for grouping and icons.
    pub(crate) app_id: String,
    /// The window it belongs to.
    pub(crate) transient_for: Option<WindowId>,
    /// The smallest size.
    pub(crate) min_size: Option<(i32, i32)>,
    /// The largest size.
    pub(crate) max_size: Option<(i32, i32)>,
    /// It takes the focus when given it.
    pub(crate) accepts_input: bool,
    /// It wants to be asked to close.
    pub(crate) deletes: bool,
    /// It wants to be told that it may take the focus.
    pub(crate) takes_focus: bool,
    /// It draws its own frame, or wants none.
    pub(crate) frameless: bool,
    /// It is a menu, a tip or the like, whatever it says of window managers.
    pub(crate) popup: bool,
    /// The shadow around a window that draws its own frame: left, right, top, bottom.
    pub(crate) shadow: [i32; 4],
    /// It starts out filling the screen.
    pub(crate) fullscreen: bool,
    /// It starts out filling the work area.
    pub(crate) maximized: bool,
}

impl Properties {
    /// Asks the X server about `window`; nothing if it is gone.
    #[must_use]
    pub(crate) fn read(x: &RustConnection, atoms: &Atoms, window: WindowId) -> Option<Self> {
        let reader = Reader { x, window };
        let class = WmClass::get(x, window).ok()?;
        let hints = WmHints::get(x, window).ok()?;
        let sizes = WmSizeHints::get_normal_hints(x, window).ok()?;
        let class = class.reply().ok().flatten();
        let hints = hints.reply().ok().flatten();
        let sizes = sizes.reply().ok().flatten();
        let protocols = reader.words(atoms.WM_PROTOCOLS, AtomEnum::ATOM.into())?;
        let states = reader.words(atoms._NET_WM_STATE, AtomEnum::ATOM.into())?;
        let kinds = reader.words(atoms._NET_WM_WINDOW_TYPE, AtomEnum::ATOM.into())?;
        let motif = reader.words(atoms._MOTIF_WM_HINTS, atoms._MOTIF_WM_HINTS)?;
        let shadow = reader.words(atoms._GTK_FRAME_EXTENTS, AtomEnum::CARDINAL.into())?;
        let own_frame = <[u32; 4]>::try_from(&shadow[..]).ok();
        let size = |pair: Option<(i32, i32)>| pair.filter(|(w, h)| *w > 0 && *h > 0);
        Some(Self {
            title: reader
                .text(atoms._NET_WM_NAME, atoms.UTF8_STRING)
                .or_else(|| reader.text(AtomEnum::WM_NAME.into(), AtomEnum::ANY.into()))
                .unwrap_or_default(),
            app_id: class
                .map(|class| String::from_utf8_lossy(class.class()).into_owned())
                .unwrap_or_default(),
            transient_for: reader
                .words(AtomEnum::WM_TRANSIENT_FOR.into(), AtomEnum::WINDOW.into())?
                .first()
                .copied()
                .filter(|parent| *parent != 0),
            min_size: size(sizes.as_ref().and_then(|sizes| sizes.min_size)),
            max_size: size(sizes.as_ref().and_then(|sizes| sizes.max_size)),
            accepts_input: hints.and_then(|hints| hints.input).unwrap_or(true),
            deletes: protocols.contains(&atoms.WM_DELETE_WINDOW),
            takes_focus: protocols.contains(&atoms.WM_TAKE_FOCUS),
            frameless: own_frame.is_some() || motif_frameless(&motif),
            popup: kinds.first().is_some_and(|kind| is_popup(atoms, *kind)),
            shadow: own_frame.map_or([0; 4], |sides| {
                sides.map(|side| i32::try_from(side).unwrap_or(0))
            }),
            fullscreen: states.contains(&atoms._NET_WM_STATE_FULLSCREEN),
            maximized: states.contains(&atoms._NET_WM_STATE_MAXIMIZED_VERT)
                && states.contains(&atoms._NET_WM_STATE_MAXIMIZED_HORZ),
        })
    }

    /// Returns whether the compositor is to draw a frame.
    #[must_use]
    pub(crate) fn wants_frame(&self) -> bool {
        !self.frameless
    }
}

/// Returns whether `_MOTIF_WM_HINTS` says that there are to be no decorations: the second flag says
/// that the third word counts, and that word is empty (Motif's MwmUtil.h).
fn motif_frameless(words: &[u32]) -> bool {
    matches!(words, [flags, _, decorations, ..] if flags & 2 != 0 && *decorations == 0)
}

fn is_popup(atoms: &Atoms, kind: Atom) -> bool {
    [
        atoms._NET_WM_WINDOW_TYPE_DROPDOWN_MENU,
        atoms._NET_WM_WINDOW_TYPE_POPUP_MENU,
        atoms._NET_WM_WINDOW_TYPE_TOOLTIP,
        atoms._NET_WM_WINDOW_TYPE_COMBO,
        atoms._NET_WM_WINDOW_TYPE_DND,
    ]
    .contains(&kind)
}

struct Reader<'a> {
    x: &'a RustConnection,
    window: WindowId,
}

impl Reader<'_> {
    /// Returns the words of a property, none if it is absent; nothing if the window is gone.
    fn words(&self, property: Atom, kind: Atom) -> Option<Vec<u32>> {
        let cookie = self
            .x
            .get_property(false, self.window, property, kind, 0, MAX_WORDS)
            .ok()?;
        let reply = cookie.reply().ok()?;
        Some(reply.value32().map(Iterator::collect).unwrap_or_default())
    }

    fn text(&self, property: Atom, kind: Atom) -> Option<String> {
        let cookie = self
            .x
            .get_property(false, self.window, property, kind, 0, MAX_WORDS)
            .ok()?;
        let reply = cookie.reply().ok()?;
        if reply.format != 8 || reply.value.is_empty() {
            return None;
        }
        // Old programs write Latin-1 where UTF-8 does not fit.
        Some(match String::from_utf8(reply.value) {
            Ok(text) => text,
            Err(latin) => latin.into_bytes().into_iter().map(char::from).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::motif_frameless;

    #[test]
    fn motif_hints_count_only_if_their_flag_is_set() {
        assert!(motif_frameless(&[2, 0, 0, 0, 0]));
        assert!(!motif_frameless(&[2, 0, 1, 0, 0]));
        assert!(!motif_frameless(&[1, 0, 0, 0, 0]));
        assert!(!motif_frameless(&[]));
    }
}
