//! The gRPC services of the daemon, on the host: each method names the request, asks the one it is for, and
//! passes its events on.

use std::pin::Pin;

use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Response, Status};
use wire::proto::Progress;
use wire::{Fault, Kind, VmName};

use crate::progress::Events;

pub(crate) mod containers;
pub(crate) mod daemon;
pub(crate) mod logs;
pub(crate) mod vms;

/// What a streaming method returns.
pub(crate) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Passes a piece of work's events to the client.
fn stream(events: Events) -> Response<Replies<Progress>> {
    Response::new(Box::pin(UnboundedReceiverStream::new(events)))
}

/// Parses a VM's name.
fn name(given: &str) -> Result<VmName, Fault> {
    given.parse().map_err(|error| {
        Fault::new(Kind::Invalid, "E-NAME", "cannot use that VM name").because(&error)
    })
}
