//! Where a VM's windows are shown, on the host. A client of the user offers the compositor that its own programs would
//! use; a jailed `wayland-hostd` then passes windows between that and the guest (ADR 19).
//!
//! ```text
//!   Refused ── offer ──▶ Shown ── host end ended ──▶ Refused ── PAUSE, compositor still there ──▶ Shown
//!                         │ offer of another compositor: a new host end takes new programs,
//!                         ▼ the old one stays until its last program has closed
//!                        Shown
//! ```
//! Each host end hears when the rules for copying change, the old ones too. While nothing was offered nobody listens on the guest's port, so its programs are refused at once.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use spec::windows::{Direction, Modes, Order, Policy, WindowsSpec};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use wire::{Fault, Kind, VmName, ports};

use crate::child::{self, Child, message_file, name_of};
use crate::log::Log;

mod questions;

pub(crate) use self::questions::Asked;

/// The program, installed beside this one.
pub(crate) const PROGRAM: &str = "wayland-hostd";

/// The compositor's socket by its name in the host end's folder.
const SOCKET: &str = "wayland";

/// Offers that wait; each is answered in milliseconds.
const OFFERS: usize = 16;

/// Questions that wait for a client that is slow: a host end has four open ones at most.
const QUESTIONS: usize = 16;

/// How long programs are refused after a host end has ended by itself: a guest that can end it must not make us start it
/// without pause.
const PAUSE: Duration = Duration::from_secs(1);

/// What the host ends of one VM are started with.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The VM.
    pub(crate) vm: VmName,
    /// The program.
    pub(crate) program: PathBuf,
    /// The VM's hybrid vsock.
    pub(crate) vsock: PathBuf,
    /// A folder for the host ends' own folders. The vsock daemon must not see it: it would be a way to the compositor.
    pub(crate) folder: PathBuf,
    /// What the VM may do.
    pub(crate) policy: Policy,
    /// Where they say what happens.
    pub(crate) log: Log,
}

/// A way to say where one VM's windows are shown.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    offers: mpsc::Sender<Offer>,
    modes: watch::Sender<Modes>,
    says: mpsc::Sender<Say>,
    asked: broadcast::Sender<Asked>,
    pids: watch::Receiver<Vec<u32>>,
}

/// An order for one host end: by its number, or the one that takes new programs.
type Say = (Option<u32>, Order);

#[derive(Debug)]
struct Offer {
    compositor: Compositor,
    answer: oneshot::Sender<Result<(), Fault>>,
}

/// A compositor's socket. The file's number tells a compositor from its successor at the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Compositor {
    path: PathBuf,
    file: (u64, u64),
}

impl Windows {
    /// Makes one VM's windows ready to be shown; what serves them is a task of `tasks` and ends with it.
    pub(crate) fn new(setting: Setting, tasks: &mut JoinSet<()>) -> Self {
        let (offers, queue) = mpsc::channel(OFFERS);
        let (tell, pids) = watch::channel(Vec::new());
        let (modes, rules) = watch::channel(setting.policy.clipboard.modes);
        let (says, said) = mpsc::channel(OFFERS);
        let asked = broadcast::Sender::new(QUESTIONS);
        let stage = Stage {
            setting,
            shown: None,
            again: None,
            leaving: JoinSet::new(),
            made: 0,
            rules,
            said,
            asked: asked.clone(),
            listening: JoinSet::new(),
            controls: Vec::new(),
            tell,
        };
        tasks.spawn(stage.run(queue));
        Self {
            offers,
            modes,
            says,
            asked,
            pids,
        }
    }

    /// Lets one transfer cross soon, in the mode `explicit`.
    ///
    /// # Errors
    /// When the VM is ending.
    pub(crate) async fn grant(&self, direction: Direction) -> Result<(), Fault> {
        self.say((None, Order::Grant(direction))).await
    }

    /// Answers a question.
    ///
    /// # Errors
    /// When the VM is ending.
    pub(crate) async fn answer(&self, id: u64, allow: bool) -> Result<(), Fault> {
        let (number, ask) = questions::parted(id);
        self.say((Some(number), Order::Answer { ask, allow })).await
    }

    async fn say(&self, say: Say) -> Result<(), Fault> {
        self.says.send(say).await.map_err(|_| ending())
    }

    /// Returns what is asked from now on.
    pub(crate) fn questions(&self) -> broadcast::Receiver<Asked> {
        self.asked.subscribe()
    }

    /// Shows the windows of new programs on the compositor at `path`.
    ///
    /// # Errors
    /// When there is no compositor of this user or the host end cannot be started.
    pub(crate) async fn show_on(&self, path: &Path) -> Result<(), Fault> {
        let compositor = Compositor::at(path)?;
        let (answer, answered) = oneshot::channel();
        let offer = Offer { compositor, answer };
        self.offers.send(offer).await.map_err(|_| ending())?;
        answered.await.map_err(|_| ending())?
    }

    /// Changes the rules for copying, for windows that are shown too.
    pub(crate) fn set_modes(&self, modes: Modes) {
        self.modes.send_replace(modes);
    }

    /// Returns the process ids of the host ends.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.pids.borrow().clone()
    }
}

fn ending() -> Fault {
    Fault::new(Kind::Busy, "E-VM-STOPPED", "the VM is ending")
}

impl Compositor {
    fn at(path: &Path) -> Result<Self, Fault> {
        let refused = |why: &str| {
            let message = format!("cannot show windows on {}", path.display());
            Fault::new(Kind::Invalid, "E-COMPOSITOR", message).cause(why)
        };
        if path.is_relative() {
            return Err(refused("it is not an absolute path"));
        }
        let found = path.canonicalize().and_then(|path| {
            let meta = std::fs::symlink_metadata(&path)?;
            Ok((path, meta))
        });
        let (path, meta) = found.map_err(|error| refused(&error.to_string()))?;
        if !meta.file_type().is_socket() {
            return Err(refused("it is no socket"));
        }
        if meta.uid() != rustix::process::getuid().as_raw() {
            return Err(refused("it belongs to another user"));
        }
        let file = (meta.dev(), meta.ino());
        Ok(Self { path, file })
    }

    /// Returns whether the same socket is still at its place.
    fn is_there(&self) -> bool {
        Self::at(&self.path).is_ok_and(|now| now == *self)
    }
}

/// The host ends of one VM.
struct Stage {
    setting: Setting,
    shown: Option<Shown>,
    again: Option<(Instant, Compositor)>,
    leaving: JoinSet<()>,
    made: u32,
    rules: watch::Receiver<Modes>,
    said: mpsc::Receiver<Say>,
    asked: broadcast::Sender<Asked>,
    /// Whoever hears what a host end asks, and returns its number when that has ended.
    listening: JoinSet<u32>,
    /// Where each host end hears answers, those that are leaving too.
    controls: Vec<(u32, UnixStream)>,
    tell: watch::Sender<Vec<u32>>,
}

/// A host end that takes new programs.
struct Shown {
    compositor: Compositor,
    child: Child,
    /// Where it hears orders.
    control: UnixStream,
    folder: Folder,
}

/// What happened next.
enum Happened {
    Offered(Offer),
    Ended(String),
    Again,
    Left,
    Silent(u32),
    Ruled(Modes),
    Said(Say),
}

impl Stage {
    async fn run(mut self, mut queue: mpsc::Receiver<Offer>) {
        while let Some(happened) = self.next(&mut queue).await {
            match happened {
                Happened::Offered(offer) => {
                    let outcome = self.show(offer.compositor);
                    // A client that went away does not hear it.
                    let _heard = offer.answer.send(outcome);
                }
                Happened::Ended(how) => self.lost(&how),
                Happened::Again => self.show_again(),
                Happened::Left => {}
                Happened::Silent(gone) => self.controls.retain(|(number, _)| *number != gone),
                Happened::Ruled(modes) => self.rule(modes),
                Happened::Said((number, order)) => self.pass_on(number, order),
            }
            let shown = self.shown.as_ref().and_then(|shown| shown.child.pid());
            self.tell.send_replace(shown.into_iter().collect());
        }
    }

    async fn next(&mut self, queue: &mut mpsc::Receiver<Offer>) -> Option<Happened> {
        let shown = async {
            match &mut self.shown {
                Some(shown) => match shown.child.ended().await {
                    Ok(status) => child::describe(shown.child.name(), status),
                    Err(error) => format!("{PROGRAM} cannot be watched: {error}"),
                },
                None => std::future::pending().await,
            }
        };
        let again = async {
            match &self.again {
                Some((at, _)) => tokio::time::sleep_until(*at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            offer = queue.recv() => offer.map(Happened::Offered),
            how = shown => Some(Happened::Ended(how)),
            () = again => Some(Happened::Again),
            Some(_) = self.leaving.join_next() => Some(Happened::Left),
            Some(Ok(number)) = self.listening.join_next() => Some(Happened::Silent(number)),
            Some(say) = self.said.recv() => Some(Happened::Said(say)),
            Ok(()) = self.rules.changed() => Some(Happened::Ruled(*self.rules.borrow_and_update())),
        }
    }

    fn show(&mut self, compositor: Compositor) -> Result<(), Fault> {
        if self
            .shown
            .as_ref()
            .is_some_and(|shown| shown.compositor == compositor)
        {
            return Ok(());
        }
        let path = compositor.path.clone();
        let started = self.start(compositor).map_err(|error| {
            let message = format!("cannot show windows on {}", path.display());
            Fault::new(Kind::Internal, "E-WINDOWS", message).because(&error)
        })?;
        let line = format!("concierge: windows are shown on {}", path.display());
        self.setting.log.line(&line);
        self.again = None;
        if let Some(old) = self.shown.replace(started) {
            self.leaving.spawn(old.leave(self.rules.clone()));
        }
        Ok(())
    }

    fn start(&mut self, compositor: Compositor) -> io::Result<Shown> {
        let setting = &self.setting;
        self.made += 1;
        let folder = Folder::make(setting, self.made, &compositor)?;
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed())
            .open(&folder.0)?;
        let listener = super::listen(&setting.vsock, ports::WAYLAND)?.into_std()?;
        let (control, theirs) = UnixStream::pair()?;
        control.set_nonblocking(true)?;
        self.controls.push((self.made, control.try_clone()?));
        let listen = questions::listen(self.made, control.try_clone()?, self.asked.clone());
        self.listening.spawn(listen);
        let spec = WindowsSpec {
            vm: setting.vm.to_string(),
            listener: name_of(&listener),
            directory: name_of(&directory),
            compositor: SOCKET.to_owned(),
            control: Some(name_of(&theirs)),
            direct: false,
            policy: setting.policy.clone(),
        };
        let message = message_file(&serde_json::to_vec(&spec).map_err(io::Error::other)?)?;
        let arguments = ["--spec-fd".to_owned(), name_of(&message).to_string()];
        let descriptors = vec![listener.into(), directory.into(), theirs.into(), message];
        let child = child::start(
            "windows",
            &setting.program,
            &arguments,
            descriptors,
            &setting.log,
        )?;
        Ok(Shown {
            compositor,
            child,
            control,
            folder,
        })
    }

    /// The rules for copying have changed.
    fn rule(&mut self, modes: Modes) {
        self.setting.policy.clipboard.modes = modes;
        if let Some(shown) = &mut self.shown {
            shown.order(Order::Modes(modes));
        }
        self.setting
            .log
            .line(&format!("concierge: clipboard: {modes:?}"));
    }

    /// Passes an order on, to a host end that may just have ended.
    fn pass_on(&self, number: Option<u32>, order: Order) {
        let wanted = number.unwrap_or(self.made);
        let mut controls = self.controls.iter();
        if let Some((_, control)) = controls.find(|(number, _)| *number == wanted) {
            questions::tell(control, order);
        }
    }

    /// The host end ended by itself: its programs have lost their windows and new ones are refused for a while.
    fn lost(&mut self, how: &str) {
        let Some(shown) = self.shown.take() else {
            return;
        };
        self.setting
            .log
            .line(&format!("concierge: windows are gone: {how}"));
        let port = link::hybrid::listener_path(&self.setting.vsock, ports::WAYLAND);
        if let Err(error) = std::fs::remove_file(port) {
            self.setting.log.line(&format!(
                "concierge: cannot close the port of windows: {error}"
            ));
        }
        self.again = Some((Instant::now() + PAUSE, shown.compositor));
    }

    fn show_again(&mut self) {
        let Some((_, compositor)) = self.again.take() else {
            return;
        };
        if compositor.is_there()
            && let Err(fault) = self.show(compositor)
        {
            let causes = &fault.parts().causes;
            self.setting
                .log
                .line(&format!("concierge: {fault}: {causes:?}"));
        }
    }
}

impl Shown {
    /// Takes no more programs and waits until the last one has closed.
    async fn leave(mut self, mut rules: watch::Receiver<Modes>) {
        self.order(Order::Leave);
        loop {
            tokio::select! {
                // Its end is what was waited for, whatever it was.
                _ended = self.child.ended() => break,
                Ok(()) = rules.changed() => {
                    let modes = *rules.borrow_and_update();
                    self.order(Order::Modes(modes));
                }
            }
        }
        drop(self.folder);
    }

    /// Gives the host end an order. One that does not hear it might go on under old rules, and is ended.
    fn order(&mut self, order: Order) {
        if !questions::tell(&self.control, order) {
            self.child.end();
        }
    }
}

/// A folder with a compositor's socket and nothing else; removed when dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    /// Gives the compositor's socket a second name in a new folder: among our own if that is on the same file system, else
    /// beside the socket.
    fn make(setting: &Setting, number: u32, compositor: &Compositor) -> io::Result<Self> {
        let own = setting.folder.as_path();
        let beside = compositor.path.parent().unwrap_or(own);
        let name = format!("testudo-{}-{}-{number}", setting.vm, std::process::id());
        match Self::link(own, &number.to_string(), compositor) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                Self::link(beside, &name, compositor)
            }
            made => made,
        }
    }

    fn link(above: &Path, name: &str, compositor: &Compositor) -> io::Result<Self> {
        let folder = above.join(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let folder = Self(folder);
        std::fs::hard_link(&compositor.path, folder.0.join(SOCKET))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.0.display();
                tracing::warn!(%path, %error, "cannot remove a compositor's second name");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
