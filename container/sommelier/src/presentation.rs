//! Presentation times in the container: the host's clock is translated to the guest's.

use std::rc::Rc;

use wayland::channel::Shared;
use wl_proxy::protocols::presentation_time::wp_presentation::{
    WpPresentation, WpPresentationHandler,
};
use wl_proxy::protocols::presentation_time::wp_presentation_feedback::{
    WpPresentationFeedback, WpPresentationFeedbackHandler, WpPresentationFeedbackKind,
};
use wl_proxy::protocols::wayland::wl_surface::WlSurface;

const NS_PER_S: i128 = 1_000_000_000;

/// Handles `wp_presentation` and each feedback made through it.
#[derive(Clone)]
pub(crate) struct PresentationHandler(pub(crate) Shared);

impl WpPresentationHandler for PresentationHandler {
    fn handle_feedback(
        &mut self,
        slf: &Rc<WpPresentation>,
        surface: &Rc<WlSurface>,
        callback: &Rc<WpPresentationFeedback>,
    ) {
        slf.send_feedback(surface, callback);
        callback.set_handler(self.clone());
    }
}

impl WpPresentationFeedbackHandler for PresentationHandler {
    fn handle_presented(
        &mut self,
        slf: &Rc<WpPresentationFeedback>,
        tv_sec_hi: u32,
        tv_sec_lo: u32,
        tv_nsec: u32,
        refresh: u32,
        seq_hi: u32,
        seq_lo: u32,
        flags: WpPresentationFeedbackKind,
    ) {
        let offset = self.0.borrow().status().clock_offset_ns;
        let (hi, lo, nsec) = translated((tv_sec_hi, tv_sec_lo, tv_nsec), offset);
        slf.send_presented(hi, lo, nsec, refresh, seq_hi, seq_lo, flags);
    }
}

/// Returns a time of the host, in the protocol's three words, on the guest's clock.
fn translated((hi, lo, nsec): (u32, u32, u32), offset_ns: i64) -> (u32, u32, u32) {
    let seconds = i128::from(hi) << 32 | i128::from(lo);
    let time = (seconds * NS_PER_S + i128::from(nsec) + i128::from(offset_ns)).max(0);
    let (seconds, nsec) = (time / NS_PER_S, time % NS_PER_S);
    let word = |value: i128| u32::try_from(value & 0xffff_ffff).expect("masked to 32 bits");
    (word(seconds >> 32), word(seconds), word(nsec))
}

#[cfg(test)]
mod tests {
    use super::translated;

    #[test]
    fn times_carry_across_seconds_and_words() {
        assert_eq!(translated((0, u32::MAX, 999_999_999), 1), (1, 0, 0));
        assert_eq!(translated((1, 0, 0), -1), (0, u32::MAX, 999_999_999));
        assert_eq!(translated((0, 5, 0), -6_000_000_000), (0, 0, 0));
    }
}
