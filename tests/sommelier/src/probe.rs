//! A Wayland client that measures: round trips, and how long a picture takes to the screen.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::time::ClockId;
use wl_proxy::baseline::Baseline;
use wl_proxy::object::{Object, ObjectCoreApi};
use wl_proxy::protocols::ObjectInterface;
use wl_proxy::protocols::presentation_time::wp_presentation::{
    WpPresentation, WpPresentationHandler,
};
use wl_proxy::protocols::presentation_time::wp_presentation_feedback::{
    WpPresentationFeedback, WpPresentationFeedbackHandler, WpPresentationFeedbackKind,
};
use wl_proxy::protocols::wayland::wl_buffer::{WlBuffer, WlBufferHandler};
use wl_proxy::protocols::wayland::wl_callback::{WlCallback, WlCallbackHandler};
use wl_proxy::protocols::wayland::wl_compositor::WlCompositor;
use wl_proxy::protocols::wayland::wl_registry::{WlRegistry, WlRegistryHandler};
use wl_proxy::protocols::wayland::wl_shm::{WlShm, WlShmFormat};
use wl_proxy::protocols::wayland::wl_surface::WlSurface;
use wl_proxy::protocols::xdg_shell::xdg_surface::{XdgSurface, XdgSurfaceHandler};
use wl_proxy::protocols::xdg_shell::xdg_toplevel::XdgToplevel;
use wl_proxy::protocols::xdg_shell::xdg_wm_base::XdgWmBase;
use wl_proxy::state::State;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// After this long a picture counts as never shown: six frames of the screen.
const NEVER_SHOWN: Duration = Duration::from_millis(100);

/// A connection to a compositor, or to what stands for one.
pub struct Probe {
    state: Rc<State>,
}

/// A picture that changes.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Width of the window.
    pub width: i32,
    /// Height of the window.
    pub height: i32,
    /// The part of it that changes each time, from the upper left.
    pub changed: (i32, i32),
}

/// What pictures took.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// From the commit until the compositor has read it, in microseconds.
    pub read_us: Vec<u64>,
    /// From the commit until the picture is on the screen, in microseconds.
    pub shown_us: Vec<u64>,
    /// Pictures in a second, drawing at the compositor's pace.
    pub fps: f64,
}

impl Probe {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = Rc::new(OwnedFd::from(UnixStream::connect(path)?));
        let state = State::builder(Baseline::ALL_OF_THEM)
            .with_server_fd(&socket)
            .build();
        let state = state.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { state })
    }

    /// Returns how long `count` round trips take, each in microseconds.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn round_trips(&self, count: usize) -> io::Result<Vec<u64>> {
        (0..count).map(|_| self.round_trip()).collect()
    }

    /// Lets `finder` see every global.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(crate) fn look(&self, finder: impl WlRegistryHandler) -> io::Result<()> {
        self.state
            .display()
            .new_send_get_registry()
            .set_handler(finder);
        self.round_trip().map(drop)
    }

    fn round_trip(&self) -> io::Result<u64> {
        let (start, done) = (Instant::now(), Rc::new(Cell::new(false)));
        self.state
            .display()
            .new_send_sync()
            .set_handler(Flag(done.clone()));
        self.until(|| done.get())?;
        Ok(micros(start.elapsed()))
    }

    fn until(&self, done: impl Fn() -> bool) -> io::Result<()> {
        if self.wait(PATIENCE, done)? {
            Ok(())
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }

    /// Waits until `done`, but not longer than `patience`; returns whether it is.
    fn wait(&self, patience: Duration, done: impl Fn() -> bool) -> io::Result<bool> {
        let end = Instant::now() + patience;
        while !done() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // wl-proxy counts in milliseconds, and takes zero for not waiting.
            let dispatched = self
                .state
                .dispatch(Some(left.max(Duration::from_millis(1))));
            dispatched.map_err(|error| io::Error::other(error.to_string()))?;
        }
        Ok(true)
    }

    fn globals(&self) -> io::Result<Globals> {
        let globals = Rc::new(RefCell::new(Globals::default()));
        self.look(Finder(globals.clone()))?;
        // What was bound says what it is.
        self.round_trip()?;
        Ok(globals.take())
    }

    /// Opens `count` windows with a picture each, which stay as long as the connection.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn open(&self, load: Load, count: usize) -> io::Result<()> {
        let globals = self.globals()?;
        for number in 0..count {
            let window = Window::new(&globals, load)?;
            self.until(|| window.configured.get())?;
            window.paint(&window.buffers[0], load, number)?;
            window.surface.send_commit();
        }
        self.round_trip().map(drop)
    }

    /// Makes `count` regions and destroys none.
    ///
    /// # Errors
    /// When the connection breaks, as it should.
    pub fn flood(&self, count: usize) -> io::Result<()> {
        let globals = self.globals()?;
        let compositor = globals.compositor.ok_or(io::ErrorKind::NotFound)?;
        for number in 0..count {
            let _region = compositor.new_send_create_region();
            if number % 1000 == 0 {
                self.round_trip()?;
            }
        }
        self.round_trip().map(drop)
    }

    /// Draws `count` pictures of `load` in a window of its own.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn draw(&self, load: Load, count: usize) -> io::Result<Drawn> {
        let globals = self.globals()?;
        let window = Window::new(&globals, load)?;
        self.until(|| window.configured.get())?;
        let mut drawn = Drawn {
            read_us: Vec::new(),
            shown_us: Vec::new(),
            fps: 0.0,
        };
        let mut shows = Vec::new();
        let start = Instant::now();
        for number in 0..count {
            let (frame, shown) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(None)));
            let buffer = self.free_buffer(&window)?;
            window.paint(buffer, load, number)?;
            window
                .surface
                .new_send_frame()
                .set_handler(Flag(frame.clone()));
            globals
                .presentation()?
                .new_send_feedback(&window.surface)
                .set_handler(Shown(shown.clone()));
            shows.push((globals.now_ns(), shown));
            window.surface.send_commit();
            drawn.read_us.push(self.round_trip()?);
            self.until(|| frame.get())?;
        }
        drawn.fps = count as f64 / start.elapsed().as_secs_f64();
        // A picture that was replaced before the screen's turn is never shown, nor are some of a compositor that is busy.
        self.wait(NEVER_SHOWN, || {
            shows.iter().all(|(_, shown)| shown.get().is_some())
        })?;
        for (committed, shown) in &shows {
            if let Some(Some(at)) = shown.get() {
                drawn
                    .shown_us
                    .push(u64::saturating_sub(at, *committed) / 1000);
            }
        }
        window.close();
        self.round_trip()?;
        Ok(drawn)
    }

    fn free_buffer<'a>(&self, window: &'a Window) -> io::Result<&'a Buffer> {
        self.until(|| window.buffers.iter().any(|buffer| buffer.free.get()))?;
        window
            .buffers
            .iter()
            .find(|buffer| buffer.free.get())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.state.destroy();
    }
}

#[derive(Default)]
struct Globals {
    compositor: Option<Rc<WlCompositor>>,
    shm: Option<Rc<WlShm>>,
    wm_base: Option<Rc<XdgWmBase>>,
    presentation: Option<Rc<WpPresentation>>,
    /// The clock of its times, as the kernel numbers it.
    clock: Rc<Cell<u32>>,
}

impl Globals {
    /// Returns the time on the clock of presentation times.
    fn now_ns(&self) -> u64 {
        let raw = self.clock.get() == ClockId::MonotonicRaw as u32;
        let clock = if raw {
            ClockId::MonotonicRaw
        } else {
            ClockId::Monotonic
        };
        let now = rustix::time::clock_gettime(clock);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
    }

    fn presentation(&self) -> io::Result<&Rc<WpPresentation>> {
        self.presentation
            .as_ref()
            .ok_or_else(|| io::Error::other("no wp_presentation"))
    }
}

struct Finder(Rc<RefCell<Globals>>);

impl WlRegistryHandler for Finder {
    fn handle_global(
        &mut self,
        slf: &Rc<WlRegistry>,
        name: u32,
        interface: ObjectInterface,
        _version: u32,
    ) {
        let mut globals = self.0.borrow_mut();
        match interface {
            ObjectInterface::WlCompositor => globals.compositor = Some(bind(slf, name, 4)),
            ObjectInterface::WlShm => globals.shm = Some(bind(slf, name, 1)),
            ObjectInterface::XdgWmBase => globals.wm_base = Some(bind(slf, name, 1)),
            ObjectInterface::WpPresentation => {
                let presentation: Rc<WpPresentation> = bind(slf, name, 1);
                presentation.set_handler(Clock(globals.clock.clone()));
                globals.presentation = Some(presentation);
            }
            _ => {}
        }
    }
}

/// Binds the global `name`.
pub(crate) fn bind<T: Object>(registry: &Rc<WlRegistry>, name: u32, version: u32) -> Rc<T> {
    let object: Rc<T> = registry.state().create_object(version);
    registry.send_bind(name, object.clone());
    object
}

struct Window {
    surface: Rc<WlSurface>,
    xdg_surface: Rc<XdgSurface>,
    toplevel: Rc<XdgToplevel>,
    configured: Rc<Cell<bool>>,
    file: Rc<OwnedFd>,
    buffers: Vec<Buffer>,
}

struct Buffer {
    object: Rc<WlBuffer>,
    offset: u64,
    free: Rc<Cell<bool>>,
}

impl Window {
    fn new(globals: &Globals, load: Load) -> io::Result<Self> {
        let missing = || io::Error::other("a basic global is missing");
        let surface = globals
            .compositor
            .as_ref()
            .ok_or_else(missing)?
            .new_send_create_surface();
        let xdg_surface = globals
            .wm_base
            .as_ref()
            .ok_or_else(missing)?
            .new_send_get_xdg_surface(&surface);
        let toplevel = xdg_surface.new_send_get_toplevel();
        let configured = Rc::new(Cell::new(false));
        xdg_surface.set_handler(Configured(configured.clone()));
        surface.send_commit();
        let (stride, len) = (load.width * 4, load.width * 4 * load.height);
        let file = memfd_create("probe", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, u64::try_from(len * 3).unwrap_or(0))?;
        let file = Rc::new(file);
        let pool = globals
            .shm
            .as_ref()
            .ok_or_else(missing)?
            .new_send_create_pool(&file, len * 3);
        let buffer = |number: i32| {
            let offset = number * len;
            let format = WlShmFormat::XRGB8888;
            let object =
                pool.new_send_create_buffer(offset, load.width, load.height, stride, format);
            let free = Rc::new(Cell::new(true));
            object.set_handler(Released(free.clone()));
            Buffer {
                object,
                offset: u64::try_from(offset).unwrap_or(0),
                free,
            }
        };
        let buffers = (0..3).map(buffer).collect();
        Ok(Self {
            surface,
            xdg_surface,
            toplevel,
            configured,
            file,
            buffers,
        })
    }

    /// Changes the part of the picture that changes and attaches it.
    fn paint(&self, buffer: &Buffer, load: Load, number: usize) -> io::Result<()> {
        let (width, height) = load.changed;
        let row = vec![(number * 37 % 251) as u8; usize::try_from(width * 4).unwrap_or(0)];
        for line in 0..u64::try_from(height).unwrap_or(0) {
            let at = buffer.offset + line * u64::try_from(load.width * 4).unwrap_or(0);
            rustix::io::pwrite(&self.file, &row, at)?;
        }
        buffer.free.set(false);
        self.surface.send_attach(Some(&buffer.object), 0, 0);
        self.surface.send_damage_buffer(0, 0, width, height);
        Ok(())
    }

    fn close(&self) {
        self.toplevel.send_destroy();
        self.xdg_surface.send_destroy();
        self.surface.send_destroy();
    }
}

struct Clock(Rc<Cell<u32>>);

impl WpPresentationHandler for Clock {
    fn handle_clock_id(&mut self, _slf: &Rc<WpPresentation>, clk_id: u32) {
        self.0.set(clk_id);
    }
}

struct Flag(Rc<Cell<bool>>);

impl WlCallbackHandler for Flag {
    fn handle_done(&mut self, _slf: &Rc<WlCallback>, _data: u32) {
        self.0.set(true);
    }
}

struct Configured(Rc<Cell<bool>>);

impl XdgSurfaceHandler for Configured {
    fn handle_configure(&mut self, slf: &Rc<XdgSurface>, serial: u32) {
        slf.send_ack_configure(serial);
        self.0.set(true);
    }
}

struct Released(Rc<Cell<bool>>);

impl WlBufferHandler for Released {
    fn handle_release(&mut self, _slf: &Rc<WlBuffer>) {
        self.0.set(true);
    }
}

/// When a picture was shown, in nanoseconds; nothing inside if it never was.
struct Shown(Rc<Cell<Option<Option<u64>>>>);

impl WpPresentationFeedbackHandler for Shown {
    fn handle_presented(
        &mut self,
        _slf: &Rc<WpPresentationFeedback>,
        tv_sec_hi: u32,
        tv_sec_lo: u32,
        tv_nsec: u32,
        _refresh: u32,
        _seq_hi: u32,
        _seq_lo: u32,
        _flags: WpPresentationFeedbackKind,
    ) {
        let seconds = u64::from(tv_sec_hi) << 32 | u64::from(tv_sec_lo);
        self.0
            .set(Some(Some(seconds * 1_000_000_000 + u64::from(tv_nsec))));
    }

    fn handle_discarded(&mut self, _slf: &Rc<WpPresentationFeedback>) {
        self.0.set(Some(None));
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
