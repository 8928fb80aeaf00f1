//! The thread that waits while the machine runs, on the host: for requests, for daemons that end or change, and for
//! the machine's own news.

mod channel;
mod request;

use std::io;

use spec::control::{Event, Line};
use spec::end::EngineEnd;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use self::channel::Channel;
use crate::machine::Machine;
use crate::pci::bus::lock;
use crate::virtio_pci::VirtioPci;

/// What an event's number means.
const NEWS: u64 = 0;
const CONTROL: u64 = 1;
/// From here on: twice the number of a device's attachment, plus one for the daemon's own requests.
const DEVICES: u64 = 2;

/// Runs the machine until it ends. Returns how.
///
/// # Errors
/// The host cannot wait.
pub(crate) fn serve(
    mut machine: Machine,
    news: &EventFd,
    control: std::os::unix::net::UnixStream,
) -> io::Result<EngineEnd> {
    use std::os::fd::AsRawFd as _;

    let mut office = Office {
        epoll: Epoll::new()?,
        watched: Vec::new(),
    };
    office.watch(news.as_raw_fd(), EventSet::IN, NEWS)?;
    office.watch(control.as_raw_fd(), EventSet::IN, CONTROL)?;
    let mut channel = Some(Channel::new(control)?);
    for device in &machine.devices {
        office.watch_device(&device.plugged.name, &device.front)?;
    }
    tell(&mut channel, Event::Running {});
    let mut events = [EpollEvent::default(); 8];
    loop {
        let count = match office.epoll.wait(-1, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        for event in &events[..count] {
            match event.data() {
                NEWS => {
                    let _count_does_not_matter = news.read();
                    if machine.yard.take_panic() {
                        tell(&mut channel, Event::Panicked {});
                    }
                }
                CONTROL => office.take_requests(&mut channel, &mut machine)?,
                number => office.hear_daemon(number - DEVICES, &mut channel, &mut machine)?,
            }
        }
        if let Some(end) = machine.yard.ended() {
            machine.finish();
            return Ok(end);
        }
    }
}

/// What is waited for.
struct Office {
    epoll: Epoll,
    /// The device of each attachment there ever was; a daemon's number is never used again.
    watched: Vec<Option<String>>,
}

impl Office {
    fn watch(&self, fd: i32, events: EventSet, number: u64) -> io::Result<()> {
        self.epoll
            .ctl(ControlOperation::Add, fd, EpollEvent::new(events, number))
    }

    /// Watches the daemon of the device called `name` for its end and its own requests.
    fn watch_device(
        &mut self,
        name: &str,
        front: &std::sync::Mutex<crate::front_end::FrontEnd>,
    ) -> io::Result<()> {
        // What is still to be heard of an earlier daemon of this device is not about this one.
        for earlier in &mut self.watched {
            if earlier.as_deref() == Some(name) {
                *earlier = None;
            }
        }
        let number = DEVICES + 2 * self.watched.len() as u64;
        self.watched.push(Some(name.to_owned()));
        let mut front = lock(front);
        let session = front.session();
        self.watch(session.socket(), EventSet::READ_HANG_UP, number)?;
        match session.request_channel() {
            Some(requests) => self.watch(requests, EventSet::IN, number + 1),
            None => Ok(()),
        }
    }

    /// Does what concierge asks; a concierge that is gone leaves the machine running.
    fn take_requests(
        &mut self,
        channel: &mut Option<Channel>,
        machine: &mut Machine,
    ) -> io::Result<()> {
        let Some(open) = channel else { return Ok(()) };
        let calls = open.receive();
        let ended = calls.is_err();
        if let Err(error) = &calls {
            tracing::info!(%error, "the control socket is closed");
        }
        for (call, fd) in calls.unwrap_or_default() {
            let before = machine.devices.len();
            let reattached = request::reattached(&call.request).map(str::to_owned);
            let reply = request::answer(call.request, fd, machine);
            if machine.devices.len() > before || reattached.is_some() {
                self.watch_new(machine, reattached.as_deref())?;
            }
            open.send(&Line::Reply { id: call.id, reply });
        }
        if ended {
            *channel = None;
        }
        Ok(())
    }

    /// Watches the daemon that a request brought.
    fn watch_new(&mut self, machine: &Machine, name: Option<&str>) -> io::Result<()> {
        let device = match name {
            Some(name) => machine
                .devices
                .iter()
                .find(|device| device.plugged.name == name),
            None => machine.devices.last(),
        };
        device.map_or(Ok(()), |device| {
            self.watch_device(&device.plugged.name, &device.front)
        })
    }

    /// Hears the daemon with attachment `number` (see [`DEVICES`]).
    fn hear_daemon(
        &mut self,
        number: u64,
        channel: &mut Option<Channel>,
        machine: &mut Machine,
    ) -> io::Result<()> {
        let index = usize::try_from(number / 2).unwrap_or(usize::MAX);
        let name = self.watched.get(index).cloned().flatten();
        let device = machine
            .devices
            .iter()
            .find(|device| Some(&device.plugged.name) == name.as_ref());
        let (Some(device), Some(name)) = (device, name) else {
            return Ok(());
        };
        let mut front = lock(&device.front);
        let gone = if number.is_multiple_of(2) {
            true
        } else {
            match front.session().answer_request() {
                Ok(changed) => {
                    let refreshed = changed && front.refresh_config().is_ok();
                    drop(front);
                    if refreshed {
                        lock::<VirtioPci>(&device.plugged.function).config_changed();
                    }
                    return Ok(());
                }
                Err(error) => {
                    tracing::info!(device = name, %error, "a daemon's requests ended");
                    true
                }
            }
        };
        if gone {
            let session = front.session();
            self.forget(session.socket());
            session
                .request_channel()
                .into_iter()
                .for_each(|fd| self.forget(fd));
            self.watched[index] = None;
            tell(channel, Event::DeviceLost { device: name });
        }
        Ok(())
    }

    fn forget(&self, fd: i32) {
        let _never_watched = self
            .epoll
            .ctl(ControlOperation::Delete, fd, EpollEvent::default());
    }
}

fn tell(channel: &mut Option<Channel>, event: Event) {
    if let Some(open) = channel {
        open.send(&Line::Event { event });
    }
}
