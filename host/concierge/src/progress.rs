//! Who hears about a piece of work: every client that asked for it, from its first event on, however late it
//! joined. Host side, in the daemon.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tonic::Status;
use wire::Fault;
use wire::proto::progress::Event;
use wire::proto::{Fraction, Progress, Stage};

/// The client's end. It ends without an error when the work is done. Unbounded because a piece of work has a
/// handful of events, and a client that does not read must not hold it up.
pub(crate) type Events = mpsc::UnboundedReceiver<Result<Progress, Status>>;

/// The daemon's end of one client.
pub(crate) type Listener = mpsc::UnboundedSender<Result<Progress, Status>>;

/// All clients that wait for one piece of work.
#[derive(Debug, Clone, Default)]
pub(crate) struct Audience(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    past: Vec<Progress>,
    listeners: Vec<Listener>,
}

impl Audience {
    /// Adds a client and tells it what happened so far.
    pub(crate) fn join(&self, listener: Listener) {
        let mut inner = self.lock();
        for event in &inner.past {
            // A client that went away is dropped with the others at the end.
            let _gone = listener.send(Ok(event.clone()));
        }
        inner.listeners.push(listener);
    }

    /// Tells everyone something to read once.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.tell(Event::Note(text.into()));
    }

    /// Tells everyone how far it is, in bytes.
    pub(crate) fn fraction(&self, done: u64, total: u64) {
        self.tell(Event::Fraction(Fraction { done, total }));
    }

    /// Opens a stage.
    pub(crate) fn stage(&self, name: &'static str) -> OpenStage {
        self.tell(Event::Stage(Stage {
            name: name.to_owned(),
            elapsed_us: None,
        }));
        OpenStage {
            audience: self.clone(),
            name,
            began: Instant::now(),
        }
    }

    /// Closes with the work's outcome.
    pub(crate) fn finish(&self, outcome: Result<(), Fault>) {
        let listeners = std::mem::take(&mut self.lock().listeners);
        let Err(fault) = outcome else { return };
        let status = Status::from(fault);
        for listener in listeners {
            let _gone = listener.send(Err(status.clone()));
        }
    }

    fn tell(&self, event: Event) {
        let event = Progress { event: Some(event) };
        let mut inner = self.lock();
        inner
            .listeners
            .retain(|listener| listener.send(Ok(event.clone())).is_ok());
        inner.past.push(event);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stage that has begun. One that is dropped unfinished has failed; the fault says so.
#[derive(Debug)]
pub(crate) struct OpenStage {
    audience: Audience,
    name: &'static str,
    began: Instant,
}

impl OpenStage {
    /// Ends the stage with the time since it began.
    pub(crate) fn done(self) {
        let elapsed = self.began.elapsed();
        self.done_in(elapsed);
    }

    /// Ends the stage with a time that was measured elsewhere.
    pub(crate) fn done_in(self, elapsed: Duration) {
        self.audience.tell(Event::Stage(Stage {
            name: self.name.to_owned(),
            elapsed_us: Some(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_client_hears_everything_and_the_same_end() {
        let audience = Audience::default();
        let (early, mut first) = mpsc::unbounded_channel();
        let (late, mut second) = mpsc::unbounded_channel();
        audience.join(early);
        audience.stage("disk").done();
        audience.join(late);
        audience.note("slow");
        audience.finish(Err(Fault::new(wire::Kind::Busy, "E-BUSY", "no")));
        for events in [&mut first, &mut second] {
            let heard: Vec<bool> = std::iter::from_fn(|| events.try_recv().ok())
                .map(|event| event.is_ok())
                .collect();
            assert_eq!(heard, [true, true, true, false]);
        }
    }
}
