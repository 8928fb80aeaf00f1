//! concierge for clients: the three services on a unix socket, over a small world of VMs and containers that
//! the calls change as the real ones would.

mod containers;
mod daemon;
mod vms;
mod world;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::service::InterceptorLayer;
use tonic::{Response, Status};
use wire::proto::containers_server::ContainersServer;
use wire::proto::daemon_server::DaemonServer;
use wire::proto::progress::Event;
use wire::proto::vms_server::VmsServer;
use wire::proto::{Chunk, Progress, Stage};
use wire::{Fault, Kind};

pub use world::World;

/// A running daemon; it serves until the test ends.
#[derive(Debug, Clone)]
pub struct Concierge {
    world: Arc<Mutex<World>>,
}

/// What the services share.
#[derive(Debug, Clone)]
struct Server {
    world: Arc<Mutex<World>>,
    pace: Duration,
}

impl Concierge {
    /// Serves `world` at `socket`.
    ///
    /// # Errors
    /// When the folder is not writable.
    pub fn start(socket: &Path, world: World) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            link::unix::listen(socket)?
        };
        let pace = world.pace;
        let world = Arc::new(Mutex::new(world));
        let server = Server {
            world: Arc::clone(&world),
            pace,
        };
        std::thread::spawn(move || {
            let serve = tonic::transport::Server::builder()
                .layer(InterceptorLayer::new(link::request::same_protocol))
                .add_service(VmsServer::new(server.clone()))
                .add_service(ContainersServer::new(server.clone()))
                .add_service(DaemonServer::new(server))
                .serve_with_incoming(UnixListenerStream::new(listener));
            runtime.block_on(serve).expect("the listener stays open");
        });
        Ok(Self { world })
    }

    /// Returns the world, to look at it or to change it.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Notes the call and refuses it if the test wants that.
    fn called(&self, call: &str, about: &str) -> Result<MutexGuard<'_, World>, Status> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world
            .calls
            .push(format!("{call} {about}").trim_end().to_owned());
        match world.refusals.get(call) {
            Some(fault) => Err(fault.clone().into()),
            None => Ok(world),
        }
    }

    /// Returns a report that these stages took so many microseconds, at the world's pace.
    fn stages(&self, stages: &[(&str, u64)]) -> Response<ProgressStream> {
        let events: Vec<_> = stages
            .iter()
            .flat_map(|(name, took)| {
                let name = *name;
                [None, Some(*took)].map(|elapsed_us| {
                    let name = name.to_owned();
                    let stage = Stage { name, elapsed_us };
                    Progress {
                        event: Some(Event::Stage(stage)),
                    }
                })
            })
            .collect();
        let (send, receive) = tokio::sync::mpsc::channel(1);
        let pace = self.pace;
        tokio::spawn(async move {
            for event in events {
                // A client that no longer listens ends the report.
                if send.send(Ok(event)).await.is_err() {
                    return;
                }
                tokio::time::sleep(pace).await;
            }
        });
        Response::new(ReceiverStream::new(receive))
    }
}

type ProgressStream = ReceiverStream<Result<Progress, Status>>;
type ChunkStream = ReceiverStream<Result<Chunk, Status>>;

fn chunks(data: &[u8]) -> Response<ChunkStream> {
    stream(
        data.chunks(1 << 20)
            .map(|data| {
                Ok(Chunk {
                    data: data.to_vec(),
                })
            })
            .collect(),
    )
}

fn stream<T>(items: Vec<T>) -> Response<ReceiverStream<T>> {
    let (send, receive) = tokio::sync::mpsc::channel(items.len().max(1));
    for item in items {
        assert!(
            send.try_send(item).is_ok(),
            "the queue is as long as the items"
        );
    }
    Response::new(ReceiverStream::new(receive))
}

/// The code and hint are those of the real daemon and agent: what a client adds has to get along with them.
fn not_found(what: &str, name: &str) -> Status {
    let (code, hint) = match what {
        "VM" => ("E-VM-NOTFOUND", format!("create it: vmc create {name}")),
        "container" => ("E-CONTAINER-NOTFOUND", format!("testudo create {name}")),
        _ => ("E-SNAPSHOT-NOTFOUND", String::new()),
    };
    let message = format!("there is no {what} {name}");
    Fault::new(Kind::NotFound, code, message).hint(hint).into()
}
