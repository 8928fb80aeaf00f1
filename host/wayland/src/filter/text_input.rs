//! text-input-v3: the host's input method types into the guest, as long as a window of it has the focus.
//!
//! Some compositors trust that nobody enables text input for a surface without focus, and crash.

use std::rc::Rc;

use wl_proxy::protocols::text_input_unstable_v3::zwp_text_input_manager_v3::{
    ZwpTextInputManagerV3, ZwpTextInputManagerV3Handler,
};
use wl_proxy::protocols::text_input_unstable_v3::zwp_text_input_v3::{
    ZwpTextInputV3, ZwpTextInputV3ContentHint, ZwpTextInputV3ContentPurpose, ZwpTextInputV3Handler,
};
use wl_proxy::protocols::wayland::wl_seat::WlSeat;
use wl_proxy::protocols::wayland::wl_surface::WlSurface;

/// The longest surrounding text: the protocol's own limit.
const MAX_SURROUNDING_LEN: usize = 4000;

/// Handles `zwp_text_input_manager_v3`.
pub(crate) struct TextInputManager;

impl ZwpTextInputManagerV3Handler for TextInputManager {
    fn handle_get_text_input(
        &mut self,
        slf: &Rc<ZwpTextInputManagerV3>,
        id: &Rc<ZwpTextInputV3>,
        seat: &Rc<WlSeat>,
    ) {
        slf.send_get_text_input(id, seat);
        id.set_handler(TextInput { focused: false });
    }
}

struct TextInput {
    focused: bool,
}

impl ZwpTextInputV3Handler for TextInput {
    fn handle_enter(&mut self, slf: &Rc<ZwpTextInputV3>, surface: &Rc<WlSurface>) {
        self.focused = true;
        slf.send_enter(surface);
    }

    fn handle_leave(&mut self, slf: &Rc<ZwpTextInputV3>, surface: &Rc<WlSurface>) {
        self.focused = false;
        slf.send_leave(surface);
    }

    fn handle_enable(&mut self, slf: &Rc<ZwpTextInputV3>) {
        if self.focused {
            slf.send_enable();
        }
    }

    fn handle_set_surrounding_text(
        &mut self,
        slf: &Rc<ZwpTextInputV3>,
        text: &str,
        cursor: i32,
        anchor: i32,
    ) {
        let inside = |at: i32| usize::try_from(at).is_ok_and(|at| text.is_char_boundary(at));
        let sound = text.len() <= MAX_SURROUNDING_LEN && inside(cursor) && inside(anchor);
        if self.focused && sound {
            slf.send_set_surrounding_text(text, cursor, anchor);
        }
    }

    fn handle_set_content_type(
        &mut self,
        slf: &Rc<ZwpTextInputV3>,
        hint: ZwpTextInputV3ContentHint,
        purpose: ZwpTextInputV3ContentPurpose,
    ) {
        if self.focused {
            slf.send_set_content_type(hint, purpose);
        }
    }

    fn handle_set_cursor_rectangle(
        &mut self,
        slf: &Rc<ZwpTextInputV3>,
        x: i32,
        y: i32,
        width: i32,
        height: i32,
    ) {
        if self.focused {
            slf.send_set_cursor_rectangle(x, y, width, height);
        }
    }
}
