//! Tells the host how a long verb goes on.

use std::time::Instant;

use tokio::sync::mpsc;
use tonic::Status;
use wire::proto::progress::Event;
use wire::proto::{Progress, Stage};

use crate::agent::microseconds;

/// Sends stages of one verb. A host that has gone away does not stop the verb.
#[derive(Clone, Debug)]
pub(super) struct Reporter(pub(super) mpsc::Sender<Result<Progress, Status>>);

impl Reporter {
    /// Says that a stage begins.
    pub(super) async fn stage(&self, name: &'static str) -> Running {
        self.send(name, None).await;
        Running {
            report: self.clone(),
            name,
            begun: Instant::now(),
        }
    }

    async fn send(&self, name: &str, elapsed_us: Option<u64>) {
        let stage = Stage {
            name: name.to_owned(),
            elapsed_us,
        };
        let _ = self
            .0
            .send(Ok(Progress {
                event: Some(Event::Stage(stage)),
            }))
            .await;
    }
}

/// A stage that has begun.
#[derive(Debug)]
pub(super) struct Running {
    report: Reporter,
    name: &'static str,
    begun: Instant,
}

impl Running {
    /// Says that it has ended well.
    pub(super) async fn done(self) {
        self.report
            .send(self.name, Some(microseconds(self.begun.elapsed())))
            .await;
    }
}
