//! Tells the compositor whose windows these are, where it has a way to be told
//! (`wp_security_context_v1`): a listening socket of ours, whose clients the compositor then treats
//! as sandboxed. A second line of defence; the filter never relies on it.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use wayland::session::SessionError;
use wl_proxy::baseline::Baseline;
use wl_proxy::protocols::ObjectInterface;
use wl_proxy::protocols::security_context_v1::wp_security_context_manager_v1::WpSecurityContextManagerV1;
use wl_proxy::protocols::wayland::wl_callback::{WlCallback, WlCallbackHandler};
use wl_proxy::protocols::wayland::wl_registry::{WlRegistry, WlRegistryHandler};
use wl_proxy::state::State;

/// How long the compositor may take to answer two round trips at the start.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket that the compositor watches, and what keeps it watched.
#[derive(Debug)]
pub struct Marked {
    /// The compositor stops listening once this is closed.
    _keep: OwnedFd,
}

/// Asks the compositor at `compositor` to take clients on a new socket at `socket` as those of `vm`;
/// returns nothing if it has no such protocol.
///
/// # Errors
/// When the compositor does not answer or the socket can't be made.
pub fn register(
    compositor: &Path,
    socket: &Path,
    (engine, vm): (&str, &str),
) -> anyhow::Result<Option<Marked>> {
    let server = UnixStream::connect(compositor).context("cannot reach the compositor")?;
    let state = State::builder(Baseline::ALL_OF_THEM)
        .with_server_fd(&Rc::new(server.into()))
        .build()
        .map_err(SessionError::from)?;
    let found = Rc::new(Cell::new(None));
    let registry = state.display().new_send_get_registry();
    registry.set_handler(Finder(found.clone()));
    round_trip(&state)?;
    let outcome = match found.get() {
        None => Ok(None),
        Some(name) => create(&state, (&registry, name), socket, (engine, vm)).map(Some),
    };
    state.destroy();
    outcome
}

fn create(
    state: &Rc<State>,
    (registry, name): (&Rc<WlRegistry>, u32),
    socket: &Path,
    (engine, vm): (&str, &str),
) -> anyhow::Result<Marked> {
    let _ = std::fs::remove_file(socket);
    let listener =
        UnixListener::bind(socket).context("cannot make the socket for marked clients")?;
    let (keep, watched) = std::io::pipe().context("cannot make a pipe")?;
    let manager = state.create_object::<WpSecurityContextManagerV1>(1);
    registry.send_bind(name, manager.clone());
    let context = manager
        .new_send_create_listener(&Rc::new(listener.into()), &Rc::new(OwnedFd::from(watched)));
    context.send_set_sandbox_engine(engine);
    context.send_set_app_id(vm);
    context.send_set_instance_id(&std::process::id().to_string());
    context.send_commit();
    round_trip(state)?;
    Ok(Marked { _keep: keep.into() })
}

/// Waits until the compositor has handled everything sent so far.
fn round_trip(state: &Rc<State>) -> anyhow::Result<()> {
    let done = Rc::new(Cell::new(false));
    state
        .display()
        .new_send_sync()
        .set_handler(Done(done.clone()));
    let end = Instant::now() + PATIENCE;
    while !done.get() {
        anyhow::ensure!(Instant::now() < end, "the compositor does not answer");
        state
            .dispatch(Some(Duration::from_millis(100)))
            .map_err(SessionError::from)?;
    }
    Ok(())
}

struct Done(Rc<Cell<bool>>);

impl WlCallbackHandler for Done {
    fn handle_done(&mut self, _slf: &Rc<WlCallback>, _data: u32) {
        self.0.set(true);
    }
}

struct Finder(Rc<Cell<Option<u32>>>);

impl WlRegistryHandler for Finder {
    fn handle_global(
        &mut self,
        _slf: &Rc<WlRegistry>,
        name: u32,
        interface: ObjectInterface,
        _version: u32,
    ) {
        if interface == ObjectInterface::WpSecurityContextManagerV1 {
            self.0.set(Some(name));
        }
    }
}
