//! The loop of the host end: one thread, every program of the VM in turn. A program's turn is at
//! most one read of its link, so none can keep the others waiting.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use spec::windows::Order;
use wayland::session::wait_until;

use crate::client::{Client, Place, refuse};
use crate::vm::Vm;

/// How long no new program is taken in after one could not be: a guest that reconnects without
/// pause must not fill the log or the CPU.
const COOL_DOWN: Duration = Duration::from_millis(200);

/// The host end of one VM.
pub struct Server {
    /// The VM.
    pub vm: Rc<Vm>,
    /// Where its programs arrive.
    pub listener: OwnedFd,
    /// The compositor's socket.
    pub compositor: PathBuf,
    /// Whether descriptors pass.
    pub direct: bool,
}

impl Server {
    /// Serves until it has been told to leave and its last program has closed, or the listener fails.
    ///
    /// # Errors
    /// When the kernel refuses to wait or to accept.
    pub fn run(&self) -> anyhow::Result<()> {
        rustix::io::ioctl_fionbio(&self.listener, true).context("cannot prepare the listener")?;
        let mut clients: Vec<Client> = Vec::new();
        let mut accept_from = Instant::now();
        let mut leaving = false;
        loop {
            clients.iter_mut().for_each(Client::prepare);
            clients.retain(|client| !client.session().is_over());
            if leaving && clients.is_empty() {
                return Ok(());
            }
            let ready = self.wait(&clients, accept_from)?;
            let now = Instant::now();
            for (client, ready) in clients.iter_mut().zip(&ready.clients) {
                let due = client.deadline().is_some_and(|at| at <= now);
                if due || ready.iter().any(|flags| !flags.is_empty()) {
                    client.turn(ready);
                }
            }
            let settled = self.vm.asks.borrow_mut().settle();
            for order in self.vm.asks.borrow_mut().take_orders() {
                match order {
                    Order::Modes(modes) => self.vm.set_modes(modes),
                    Order::Leave => leaving = true,
                    // Settled by whoever keeps the questions.
                    Order::Grant(_) | Order::Answer { .. } => {}
                }
            }
            settled.into_iter().for_each(|(allow, then)| then(allow));
            // A successor has its own socket; what already waits in ours is taken first.
            if ready.listener {
                match self.accept() {
                    Ok(new) => clients.extend(new),
                    Err(error) => {
                        tracing::warn!("cannot take a program in: {error:#}");
                        accept_from = Instant::now() + COOL_DOWN;
                    }
                }
            }
        }
    }

    fn accept(&self) -> anyhow::Result<Option<Client>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match accept_with(&self.listener, flags) {
            Ok(link) => match Place::take(&self.vm, &self.compositor) {
                Ok(place) => Client::new(&self.vm, link, place, self.direct).map(Some),
                Err(error) => {
                    if !self.direct {
                        refuse(&link, &self.vm.name, &format!("{error:#}"));
                    }
                    Err(error)
                }
            },
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(error) => Err(error).context("cannot accept"),
        }
    }

    fn wait(&self, clients: &[Client], accept_from: Instant) -> anyhow::Result<Ready> {
        let asks = self.vm.asks.borrow();
        let channels: Vec<_> = clients
            .iter()
            .map(|client| client.session().channel())
            .collect();
        let mut fds = Vec::with_capacity(2 + clients.len() * 5);
        let accepting = accept_from <= Instant::now();
        let wanted = if accepting {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        fds.push(PollFd::new(&self.listener, wanted));
        fds.extend(
            asks.control()
                .map(|control| PollFd::new(control, PollFlags::IN)),
        );
        let mut starts = Vec::with_capacity(clients.len() + 1);
        for (client, channel) in clients.iter().zip(&channels) {
            starts.push(fds.len());
            client.session().interest(&**channel, &mut fds);
        }
        starts.push(fds.len());
        let cool = (!accepting).then_some(accept_from);
        let own = [asks.deadline(), cool].into_iter().flatten();
        let deadline = clients.iter().filter_map(Client::deadline).chain(own).min();
        wait_until(&mut fds, deadline)?;
        let flags: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let of = |window: &[usize]| flags[window[0]..window[1]].to_vec();
        Ok(Ready {
            listener: flags[0].contains(PollFlags::IN),
            clients: starts.windows(2).map(of).collect(),
        })
    }
}

struct Ready {
    listener: bool,
    clients: Vec<Vec<PollFlags>>,
}
