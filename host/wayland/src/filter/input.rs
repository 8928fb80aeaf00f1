//! Input on its way to a guest: keymaps are named as what they are, and the VM's last input is noted.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use wayland::channel::FdRole;
use wayland::frame::MAX_CONTENTS_LEN;
use wl_proxy::fixed::Fixed;
use wl_proxy::protocols::wayland::wl_keyboard::{
    WlKeyboard, WlKeyboardHandler, WlKeyboardKeyState, WlKeyboardKeymapFormat,
};
use wl_proxy::protocols::wayland::wl_pointer::{WlPointer, WlPointerButtonState, WlPointerHandler};
use wl_proxy::protocols::wayland::wl_seat::{WlSeat, WlSeatHandler};
use wl_proxy::protocols::wayland::wl_surface::WlSurface;
use wl_proxy::protocols::wayland::wl_touch::{WlTouch, WlTouchHandler};

use super::Context;

/// Handles `wl_seat`.
pub(crate) struct SeatHandler(pub(crate) Context);

impl WlSeatHandler for SeatHandler {
    fn handle_get_keyboard(&mut self, slf: &Rc<WlSeat>, id: &Rc<WlKeyboard>) {
        slf.send_get_keyboard(id);
        id.set_handler(Input(self.0.clone()));
    }

    fn handle_get_pointer(&mut self, slf: &Rc<WlSeat>, id: &Rc<WlPointer>) {
        slf.send_get_pointer(id);
        id.set_handler(Input(self.0.clone()));
    }

    fn handle_get_touch(&mut self, slf: &Rc<WlSeat>, id: &Rc<WlTouch>) {
        slf.send_get_touch(id);
        id.set_handler(Input(self.0.clone()));
    }
}

struct Input(Context);

impl WlKeyboardHandler for Input {
    fn handle_keymap(
        &mut self,
        slf: &Rc<WlKeyboard>,
        format: WlKeyboardKeymapFormat,
        fd: &Rc<OwnedFd>,
        size: u32,
    ) {
        if size as usize > MAX_CONTENTS_LEN {
            tracing::warn!(size, "the compositor's keymap is too large to pass on");
        } else if slf.try_send_keymap(format, fd, size).is_ok() {
            self.0
                .channel
                .borrow_mut()
                .expect_fd(FdRole::Contents(size));
        }
    }

    fn handle_key(
        &mut self,
        slf: &Rc<WlKeyboard>,
        serial: u32,
        time: u32,
        key: u32,
        state: WlKeyboardKeyState,
    ) {
        self.0.vm.note_input();
        slf.send_key(serial, time, key, state);
    }
}

impl WlPointerHandler for Input {
    fn handle_button(
        &mut self,
        slf: &Rc<WlPointer>,
        serial: u32,
        time: u32,
        button: u32,
        state: WlPointerButtonState,
    ) {
        self.0.vm.note_input();
        slf.send_button(serial, time, button, state);
    }
}

impl WlTouchHandler for Input {
    fn handle_down(
        &mut self,
        slf: &Rc<WlTouch>,
        serial: u32,
        time: u32,
        surface: &Rc<WlSurface>,
        id: i32,
        x: Fixed,
        y: Fixed,
    ) {
        self.0.vm.note_input();
        slf.send_down(serial, time, surface, id, x, y);
    }
}
