//! X programs on screens with many pixels: the X world is larger than the compositor's by a factor, in the container.
//!
//! X knows only pixels. With a factor of two a window of 800 X pixels is 400 wide for Wayland and is drawn pixel for
//! pixel on a screen of scale two: sharp, and as large as its program makes it for the DPI it is told. With a factor of
//! one the compositor enlarges it: right in size, not sharp, and good for programs that know nothing of DPI.
//! Everything that crosses is converted here: pointers, sizes, regions, screens.

use std::cell::Cell;
use std::rc::Rc;

use wl_proxy::fixed::Fixed;
use wl_proxy::protocols::relative_pointer_unstable_v1::zwp_relative_pointer_manager_v1::{
    ZwpRelativePointerManagerV1, ZwpRelativePointerManagerV1Handler,
};
use wl_proxy::protocols::relative_pointer_unstable_v1::zwp_relative_pointer_v1::{
    ZwpRelativePointerV1, ZwpRelativePointerV1Handler,
};
use wl_proxy::protocols::viewporter::wp_viewport::WpViewport;
use wl_proxy::protocols::wayland::wl_output::{WlOutput, WlOutputHandler};
use wl_proxy::protocols::wayland::wl_pointer::WlPointer;
use wl_proxy::protocols::wayland::wl_region::{WlRegion, WlRegionHandler};
use wl_proxy::protocols::wayland::wl_surface::WlSurface;
use wl_proxy::protocols::wayland::wl_touch::{WlTouch, WlTouchHandler};
use wl_proxy::protocols::xdg_output_unstable_v1::zxdg_output_manager_v1::{
    ZxdgOutputManagerV1, ZxdgOutputManagerV1Handler,
};
use wl_proxy::protocols::xdg_output_unstable_v1::zxdg_output_v1::{
    ZxdgOutputV1, ZxdgOutputV1Handler,
};

/// Factors outside this range make text unreadable or windows larger than X's coordinates.
const RANGE: std::ops::RangeInclusive<f64> = 0.25..=8.0;

/// X pixels for each unit of the compositor.
#[derive(Debug)]
pub(crate) struct Scale {
    factor: Cell<f64>,
    /// The user has said which; screens do not change it.
    fixed: bool,
}

impl Scale {
    /// Returns the factor the user wants, or one that follows the screens.
    #[must_use]
    pub(crate) fn new(wanted: Option<f64>) -> Rc<Self> {
        let factor = wanted.filter(|factor| RANGE.contains(factor));
        Rc::new(Self {
            factor: Cell::new(factor.unwrap_or(1.0)),
            fixed: factor.is_some(),
        })
    }

    /// Returns the factor.
    #[must_use]
    pub(crate) fn factor(&self) -> f64 {
        self.factor.get()
    }

    /// Returns whether X pixels are the compositor's units.
    #[must_use]
    pub(crate) fn is_one(&self) -> bool {
        (self.factor.get() - 1.0).abs() < f64::EPSILON
    }

    /// Returns a length of the compositor in X pixels.
    #[must_use]
    pub(crate) fn to_x(&self, length: i32) -> i32 {
        rounded(f64::from(length) * self.factor.get())
    }

    /// Returns a length in X pixels in the compositor's units.
    #[must_use]
    pub(crate) fn to_wayland(&self, length: i32) -> i32 {
        rounded(f64::from(length) / self.factor.get())
    }

    /// Returns a size in X pixels in the compositor's units, never less than one.
    #[must_use]
    pub(crate) fn size_to_wayland(&self, (width, height): (i32, i32)) -> (i32, i32) {
        (
            self.to_wayland(width).max(1),
            self.to_wayland(height).max(1),
        )
    }

    /// Returns a position of the compositor in X pixels.
    #[must_use]
    pub(crate) fn point(&self, position: Fixed) -> Fixed {
        Fixed::from_f64_lossy(position.to_f64() * self.factor.get())
    }

    /// Follows a screen: X programs get the pixels of the sharpest one.
    fn follow(&self, screen: i32) {
        let screen = f64::from(screen);
        if !self.fixed && RANGE.contains(&screen) && screen > self.factor.get() {
            self.factor.set(screen);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the ranges of i32 and of windows are far apart"
)]
fn rounded(value: f64) -> i32 {
    value.round() as i32
}

/// Makes the picture on `surface` as large for the compositor as its X pixels are worth.
pub(crate) fn fit(scale: &Scale, viewport: &Rc<WpViewport>, size: (i32, i32)) {
    let (width, height) = scale.size_to_wayland(size);
    viewport.send_set_destination(width, height);
}

/// Converts what Xwayland binds.
#[derive(Clone)]
pub(crate) struct Converter(pub(crate) Rc<Scale>);

impl WlOutputHandler for Converter {
    fn handle_scale(&mut self, slf: &Rc<WlOutput>, factor: i32) {
        self.0.follow(factor);
        // Xwayland itself knows nothing of scales.
        slf.send_scale(1);
    }
}

impl ZxdgOutputManagerV1Handler for Converter {
    fn handle_get_xdg_output(
        &mut self,
        slf: &Rc<ZxdgOutputManagerV1>,
        id: &Rc<ZxdgOutputV1>,
        output: &Rc<WlOutput>,
    ) {
        slf.send_get_xdg_output(id, output);
        id.set_handler(self.clone());
    }
}

impl ZxdgOutputV1Handler for Converter {
    fn handle_logical_position(&mut self, slf: &Rc<ZxdgOutputV1>, x: i32, y: i32) {
        slf.send_logical_position(self.0.to_x(x), self.0.to_x(y));
    }

    fn handle_logical_size(&mut self, slf: &Rc<ZxdgOutputV1>, width: i32, height: i32) {
        slf.send_logical_size(self.0.to_x(width), self.0.to_x(height));
    }
}

impl WlRegionHandler for Converter {
    fn handle_add(&mut self, slf: &Rc<WlRegion>, x: i32, y: i32, width: i32, height: i32) {
        let [x, y, width, height] = [x, y, width, height].map(|length| self.0.to_wayland(length));
        slf.send_add(x, y, width, height);
    }

    fn handle_subtract(&mut self, slf: &Rc<WlRegion>, x: i32, y: i32, width: i32, height: i32) {
        let [x, y, width, height] = [x, y, width, height].map(|length| self.0.to_wayland(length));
        slf.send_subtract(x, y, width, height);
    }
}

impl WlTouchHandler for Converter {
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
        slf.send_down(serial, time, surface, id, self.0.point(x), self.0.point(y));
    }

    fn handle_motion(&mut self, slf: &Rc<WlTouch>, time: u32, id: i32, x: Fixed, y: Fixed) {
        slf.send_motion(time, id, self.0.point(x), self.0.point(y));
    }
}

impl ZwpRelativePointerManagerV1Handler for Converter {
    fn handle_get_relative_pointer(
        &mut self,
        slf: &Rc<ZwpRelativePointerManagerV1>,
        id: &Rc<ZwpRelativePointerV1>,
        pointer: &Rc<WlPointer>,
    ) {
        slf.send_get_relative_pointer(id, pointer);
        id.set_handler(self.clone());
    }
}

impl ZwpRelativePointerV1Handler for Converter {
    fn handle_relative_motion(
        &mut self,
        slf: &Rc<ZwpRelativePointerV1>,
        utime_hi: u32,
        utime_lo: u32,
        dx: Fixed,
        dy: Fixed,
        dx_unaccel: Fixed,
        dy_unaccel: Fixed,
    ) {
        let (dx, dy) = (self.0.point(dx), self.0.point(dy));
        slf.send_relative_motion(utime_hi, utime_lo, dx, dy, dx_unaccel, dy_unaccel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_convert_both_ways() {
        let scale = Scale::new(Some(1.5));
        assert_eq!((scale.to_x(400), scale.to_wayland(600)), (600, 400));
        assert_eq!(scale.size_to_wayland((1, 0)), (1, 1));
        assert_eq!(
            scale.point(Fixed::from_f64_lossy(10.5)),
            Fixed::from_f64_lossy(15.75)
        );
    }

    #[test]
    fn the_sharpest_screen_counts_unless_the_user_has_chosen() {
        let scale = Scale::new(None);
        [1, 2, 1]
            .into_iter()
            .for_each(|screen| scale.follow(screen));
        assert_eq!(scale.to_x(1), 2);
        let chosen = Scale::new(Some(1.0));
        chosen.follow(2);
        assert!(chosen.is_one());
    }

    #[test]
    fn senseless_factors_are_not_taken() {
        for wild in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(Scale::new(Some(wild)).is_one(), "{wild}");
        }
    }
}
