//! Questions to the user about the clipboard, on the host. They are asked by whoever holds the other
//! end of the control socket, in lines of JSON:
//!
//! ```text
//! ─▶ {"ask":1,"direction":"to-guest","mime":"text/plain"}
//! ◀─ {"answer":{"ask":1,"allow":true}}
//! ◀─ {"grant":"to-host"}            one transfer, for the mode `explicit`
//! ```
//! Without a control socket, and without an answer in time, the answer is no. The same socket brings concierge's other
//! orders ([`Order`]).

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use spec::windows::{Direction, Order, Question};

/// How long a question stays open.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most questions open at once; a guest that asks more gets a no at once.
const MAX_OPEN: usize = 4;

/// The longest line that is read as an answer.
const MAX_LINE: usize = 256;

/// How long a grant lasts if nobody uses it.
const GRANT: Duration = Duration::from_secs(60);

/// What is to happen once there is an answer.
pub type Then = Box<dyn FnOnce(bool)>;

/// Open questions and unused grants.
#[derive(Default)]
pub struct Asks {
    control: Option<OwnedFd>,
    orders: Vec<Order>,
    line: Vec<u8>,
    next: u64,
    open: HashMap<u64, (Instant, Then)>,
    grants: Vec<(Direction, Instant)>,
}

impl Asks {
    /// Returns questions that nobody answers.
    #[must_use]
    pub fn nobody() -> Self {
        Self::default()
    }

    /// Returns questions that go to `control`.
    #[must_use]
    pub fn to(control: OwnedFd) -> Self {
        Self {
            control: Some(control),
            ..Self::default()
        }
    }

    /// Returns the socket on which answers arrive.
    #[must_use]
    pub fn control(&self) -> Option<&OwnedFd> {
        self.control.as_ref()
    }

    /// Returns the orders that have come in since the last call of this.
    pub fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// Asks whether data of type `mime` may go in `direction`, and calls `then` with the answer.
    pub fn ask(&mut self, direction: Direction, mime: &str, then: Then) {
        let id = self.next;
        self.next += 1;
        let question = Question {
            ask: id,
            direction,
            mime: mime.to_owned(),
        };
        let asked = self.open.len() < MAX_OPEN
            && self
                .control
                .as_ref()
                .is_some_and(|control| send_line(control, &question));
        if asked {
            self.open.insert(id, (Instant::now() + PATIENCE, then));
        } else {
            then(false);
        }
    }

    /// Uses a grant for `direction`, if there is one.
    pub fn use_grant(&mut self, direction: Direction) -> bool {
        self.grants.retain(|(_, until)| *until > Instant::now());
        let found = self
            .grants
            .iter()
            .position(|(granted, _)| *granted == direction);
        found.map(|at| self.grants.remove(at)).is_some()
    }

    /// Reads answers and returns what they set in motion; to be called when the socket is readable
    /// and when a question may have grown old.
    pub fn settle(&mut self) -> Vec<(bool, Then)> {
        let mut settled = self.read_answers();
        let now = Instant::now();
        let old: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, (until, _))| *until <= now)
            .map(|(id, _)| *id)
            .collect();
        settled.extend(
            old.iter()
                .filter_map(|id| self.open.remove(id))
                .map(|(_, then)| (false, then)),
        );
        settled
    }

    /// Returns when the oldest question is to be given up.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|(until, _)| *until).min()
    }

    fn read_answers(&mut self) -> Vec<(bool, Then)> {
        let mut settled = Vec::new();
        let mut bytes = [0; 1024];
        let Some(control) = &self.control else {
            return settled;
        };
        match rustix::net::recv(control, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((got @ 1.., _)) => self.line.extend_from_slice(&bytes[..got]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok((0, _)) | Err(_) => self.control = None,
        }
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(Order::Answer { ask, allow }) => {
                    settled.extend(self.open.remove(&ask).map(|(_, then)| (allow, then)));
                }
                Ok(Order::Grant(direction)) => {
                    self.grants.push((direction, Instant::now() + GRANT));
                }
                Ok(order) => self.orders.push(order),
                Err(error) => tracing::warn!(%error, "unreadable line on the control socket"),
            }
        }
        if self.line.len() > MAX_LINE {
            self.line.clear();
        }
        settled
    }
}

fn send_line(control: impl AsFd, question: &Question) -> bool {
    let Ok(mut line) = serde_json::to_vec(question) else {
        return false;
    };
    line.push(b'\n');
    wayland::socket::send_some(control, &line).is_ok_and(|sent| sent == line.len())
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asks")
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    use spec::windows::{Mode, Modes};

    use super::*;

    fn answer_of(asks: &mut Asks) -> Rc<Cell<Option<bool>>> {
        let answer = Rc::new(Cell::new(None));
        let seen = answer.clone();
        asks.ask(
            Direction::ToGuest,
            "text/plain",
            Box::new(move |allow| seen.set(Some(allow))),
        );
        answer
    }

    fn settle(asks: &mut Asks) {
        for (allow, then) in asks.settle() {
            then(allow);
        }
    }

    #[test]
    fn without_anybody_to_ask_the_answer_is_no() {
        assert_eq!(answer_of(&mut Asks::nobody()).get(), Some(false));
    }

    #[test]
    fn an_answer_reaches_its_question() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut asks = Asks::to(near.into());
        let answer = answer_of(&mut asks);
        let mut line = String::new();
        BufReader::new(&far).read_line(&mut line).unwrap();
        assert_eq!(
            line,
            "{\"ask\":0,\"direction\":\"to-guest\",\"mime\":\"text/plain\"}\n"
        );
        settle(&mut asks);
        assert_eq!(answer.get(), None);
        (&far)
            .write_all(b"{\"answer\":{\"ask\":0,\"allow\":true}}\n")
            .unwrap();
        settle(&mut asks);
        assert_eq!(answer.get(), Some(true));
    }

    #[test]
    fn orders_come_on_the_same_socket() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut asks = Asks::to(near.into());
        let lines = "{\"modes\":{\"to_guest\":\"off\",\"to_host\":\"on-focus\"}}\n\"leave\"\n";
        (&far).write_all(lines.as_bytes()).unwrap();
        settle(&mut asks);
        let modes = Modes {
            to_guest: Mode::Off,
            to_host: Mode::OnFocus,
        };
        assert_eq!(asks.take_orders(), [Order::Modes(modes), Order::Leave]);
        assert_eq!(asks.take_orders(), []);
    }

    #[test]
    fn a_flood_of_questions_is_answered_with_no() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut asks = Asks::to(near.into());
        for _ in 0..MAX_OPEN {
            assert_eq!(answer_of(&mut asks).get(), None);
        }
        assert_eq!(answer_of(&mut asks).get(), Some(false));
    }

    #[test]
    fn a_grant_is_good_for_one_transfer() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut asks = Asks::to(near.into());
        (&far)
            .write_all(b"{\"grant\":\"to-host\"}\nnonsense\n")
            .unwrap();
        settle(&mut asks);
        assert!(!asks.use_grant(Direction::ToGuest));
        assert!(asks.use_grant(Direction::ToHost));
        assert!(!asks.use_grant(Direction::ToHost));
    }
}
