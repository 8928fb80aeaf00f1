//! What a client does to its surfaces, in the container: commits send pixels first, and frame
//! callbacks wait while the host is behind.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use wayland::channel::{Memory, Shared};
use wl_proxy::object::{ObjectCoreApi, ObjectUtils};
use wl_proxy::protocols::viewporter::wp_viewport::WpViewport;
use wl_proxy::protocols::wayland::wl_buffer::WlBuffer;
use wl_proxy::protocols::wayland::wl_callback::{WlCallback, WlCallbackHandler};
use wl_proxy::protocols::wayland::wl_compositor::{WlCompositor, WlCompositorHandler};
use wl_proxy::protocols::wayland::wl_output::WlOutputTransform;
use wl_proxy::protocols::wayland::wl_region::WlRegion;
use wl_proxy::protocols::wayland::wl_surface::{WlSurface, WlSurfaceHandler};

use crate::damage::{Damage, History, Rect};
use crate::shm::{Buffer, with_buffer};
use crate::stats::Stats;
use crate::xwm::bridge::Bridge;
use crate::xwm::scale::{Converter, fit};

/// Commits with pixels that may be under way before clients are told to wait: one being shown,
/// one on the link. More only adds delay.
const MAX_UNSEEN_COMMITS: u32 = 2;

/// More damage rectangles than this in one commit count as damage everywhere.
const MAX_DAMAGE: usize = 512;

/// What all surfaces of a client share.
pub(crate) struct Surfaces {
    channel: Shared,
    stats: Stats,
    held: RefCell<VecDeque<(Rc<WlCallback>, u32)>>,
    /// The window manager to tell, if these are Xwayland's surfaces.
    bridge: Option<Rc<Bridge>>,
}

impl Surfaces {
    /// Returns the surfaces of a client on `channel`.
    #[must_use]
    pub(crate) fn new(channel: Shared, stats: Stats, bridge: Option<Rc<Bridge>>) -> Rc<Self> {
        Rc::new(Self {
            channel,
            stats,
            held: RefCell::default(),
            bridge,
        })
    }

    /// Lets frame callbacks go once the host has caught up.
    pub(crate) fn release_held(&self) {
        while !self.behind() {
            let Some((callback, time)) = self.held.borrow_mut().pop_front() else {
                break;
            };
            callback.send_done(time);
            callback.delete_id();
        }
    }

    fn behind(&self) -> bool {
        self.channel.borrow().status().unseen_commits > MAX_UNSEEN_COMMITS
    }
}

/// Handles `wl_compositor`.
pub(crate) struct CompositorHandler(pub(crate) Rc<Surfaces>);

impl WlCompositorHandler for CompositorHandler {
    fn handle_create_surface(&mut self, slf: &Rc<WlCompositor>, id: &Rc<WlSurface>) {
        slf.send_create_surface(id);
        let mut surface = Surface::new(self.0.clone());
        if let Some(bridge) = &self.0.bridge {
            bridge.add_surface(id);
            surface.hold_back();
        }
        id.set_handler(surface);
    }

    fn handle_create_region(&mut self, slf: &Rc<WlCompositor>, id: &Rc<WlRegion>) {
        slf.send_create_region(id);
        if let Some(bridge) = &self.0.bridge {
            id.set_handler(Converter(bridge.scale.clone()));
        }
    }
}

/// One surface.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the surface"
)]
pub(crate) struct Surface {
    shared: Rc<Surfaces>,
    attached: Option<Rc<WlBuffer>>,
    damage: Vec<Rect>,
    /// Surface damage can't be turned into buffer pixels, or was not in pixels.
    damage_unknown: bool,
    surface_damage: Vec<Rect>,
    scale: i32,
    turned: bool,
    /// The surface has a viewport, so its own units are not buffer pixels.
    viewport: bool,
    history: History,
    gate: Gate,
    /// What makes an X window smaller than its pixels.
    fitted: Option<Rc<WpViewport>>,
}

/// Whether what the client draws goes on to the host. X windows are drawn before the compositor has
/// given them a size, which Wayland does not allow; so they are kept back until it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Shut { committed: bool },
}

impl Surface {
    fn new(shared: Rc<Surfaces>) -> Self {
        Self {
            shared,
            attached: None,
            damage: Vec::new(),
            damage_unknown: false,
            surface_damage: Vec::new(),
            scale: 1,
            turned: false,
            viewport: false,
            history: History::default(),
            gate: Gate::Open,
            fitted: None,
        }
    }

    /// Makes an X window as large as its pixels are worth; the window manager's scale may change.
    fn fit_scale(&mut self, surface: &Rc<WlSurface>) {
        let Some(bridge) = &self.shared.bridge else {
            return;
        };
        let Some(size) = self
            .attached
            .as_ref()
            .and_then(|buffer| with_buffer(buffer, Buffer::size))
        else {
            return;
        };
        if bridge.scale.is_one() && self.fitted.is_none() {
            return;
        }
        if self.fitted.is_none() {
            self.fitted = bridge
                .viewporter()
                .map(|viewporter| viewporter.new_send_get_viewport(surface));
        }
        if let Some(viewport) = &self.fitted {
            fit(&bridge.scale, viewport, size);
        }
    }

    /// Keeps what the client draws back until [`Surface::open`].
    pub(crate) fn hold_back(&mut self) {
        self.gate = Gate::Shut { committed: false };
    }

    /// Lets what the client draws through, from its last picture on.
    pub(crate) fn open(&mut self, surface: &Rc<WlSurface>) {
        if let Gate::Shut { committed } = std::mem::replace(&mut self.gate, Gate::Open)
            && committed
        {
            if let Some(buffer) = &self.attached {
                surface.send_attach(Some(buffer), 0, 0);
            }
            self.commit(surface);
        }
    }

    fn commit(&mut self, surface: &Rc<WlSurface>) {
        self.fit_scale(surface);
        if self.shared.channel.borrow().status().copies {
            self.send_pixels(surface);
        } else if self.attached.take().is_some() {
            self.shared.stats.commit(surface.unique_id(), 0);
        }
        surface.send_commit();
    }

    /// Notes that the surface has got, or lost, a viewport.
    pub(crate) fn set_viewport(&mut self, viewport: bool) {
        self.viewport = viewport;
    }

    fn take_damage(&mut self) -> Damage {
        let surface_damage = std::mem::take(&mut self.surface_damage);
        let mut rects = std::mem::take(&mut self.damage);
        let opaque = self.turned || self.viewport;
        if std::mem::take(&mut self.damage_unknown) || (opaque && !surface_damage.is_empty()) {
            return Damage::All;
        }
        rects.extend(
            surface_damage
                .into_iter()
                .map(|rect| rect.scaled(self.scale)),
        );
        Damage::Rects(rects)
    }

    fn send_pixels(&mut self, surface: &Rc<WlSurface>) {
        let damage = self.take_damage();
        let Some(object) = self.attached.take() else {
            return;
        };
        let id = surface.unique_id();
        let commit = self.history.push(damage);
        let history = &self.history;
        let sent = with_buffer(&object, |buffer| {
            let (width, height) = buffer.size();
            let rects = history.since(buffer.seen_by(id), width, height);
            buffer.mark_seen(id, commit);
            rects
                .into_iter()
                .map(|rect| buffer.send(&object, rect))
                .sum::<u64>()
        });
        let sent = sent.unwrap_or(0);
        if sent > 0 {
            self.shared.channel.borrow_mut().memory(Memory::Commit);
        }
        self.shared.stats.commit(id, sent);
    }
}

impl WlSurfaceHandler for Surface {
    fn handle_attach(
        &mut self,
        slf: &Rc<WlSurface>,
        buffer: Option<&Rc<WlBuffer>>,
        x: i32,
        y: i32,
    ) {
        self.attached = buffer.cloned();
        if self.gate == Gate::Open {
            slf.send_attach(buffer, x, y);
        }
    }

    fn handle_damage(&mut self, slf: &Rc<WlSurface>, x: i32, y: i32, width: i32, height: i32) {
        if self.surface_damage.len() < MAX_DAMAGE {
            self.surface_damage.push(Rect {
                x,
                y,
                width,
                height,
            });
        } else {
            self.damage_unknown = true;
        }
        slf.send_damage(x, y, width, height);
    }

    fn handle_damage_buffer(
        &mut self,
        slf: &Rc<WlSurface>,
        x: i32,
        y: i32,
        width: i32,
        height: i32,
    ) {
        if self.damage.len() < MAX_DAMAGE {
            self.damage.push(Rect {
                x,
                y,
                width,
                height,
            });
        } else {
            self.damage_unknown = true;
        }
        slf.send_damage_buffer(x, y, width, height);
    }

    fn handle_set_buffer_scale(&mut self, slf: &Rc<WlSurface>, scale: i32) {
        self.scale = scale.max(1);
        self.damage_unknown = true;
        slf.send_set_buffer_scale(scale);
    }

    fn handle_set_buffer_transform(&mut self, slf: &Rc<WlSurface>, transform: WlOutputTransform) {
        self.turned = transform != WlOutputTransform::NORMAL;
        self.damage_unknown = true;
        slf.send_set_buffer_transform(transform);
    }

    fn handle_commit(&mut self, slf: &Rc<WlSurface>) {
        match &mut self.gate {
            Gate::Open => self.commit(slf),
            Gate::Shut { committed } => *committed = true,
        }
    }

    fn handle_frame(&mut self, slf: &Rc<WlSurface>, callback: &Rc<WlCallback>) {
        slf.send_frame(callback);
        callback.set_handler(FrameDone {
            shared: self.shared.clone(),
            held: false,
        });
    }

    fn handle_destroy(&mut self, slf: &Rc<WlSurface>) {
        if let Some(bridge) = &self.shared.bridge {
            bridge.surface_gone(slf);
        }
        if let Some(viewport) = self.fitted.take() {
            viewport.send_destroy();
        }
        self.shared.stats.forget(slf.unique_id());
        slf.send_destroy();
    }
}

struct FrameDone {
    shared: Rc<Surfaces>,
    held: bool,
}

impl WlCallbackHandler for FrameDone {
    fn handle_done(&mut self, slf: &Rc<WlCallback>, time: u32) {
        if self.shared.behind() {
            self.held = true;
            self.shared.stats.held();
            self.shared.held.borrow_mut().push_back((slf.clone(), time));
        } else {
            slf.send_done(time);
        }
    }

    fn delete_id(&mut self, slf: &Rc<WlCallback>) {
        // A callback that is held keeps its number until it has been sent.
        if !self.held {
            slf.delete_id();
        }
    }
}

/// Changes the handler of `surface`, if it is one of ours.
pub(crate) fn with_surface(surface: &Rc<WlSurface>, act: impl FnOnce(&mut Surface)) {
    if let Ok(mut handler) = surface.try_get_handler_mut::<Surface>() {
        act(&mut handler);
    }
}
