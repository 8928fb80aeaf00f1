//! The agent: listens for the host, says that the VM is up, and serves until it is told to end the machine.
//!
//! It holds nothing that matters: what runs and what exists is read from the kernel and the disk, so a new
//! agent goes on where a killed one stopped. One thread does everything but waiting for the disk.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, OnceCell};
use tonic::transport::Server;
use wire::proto::Ready;
use wire::proto::containers_server::ContainersServer;
use wire::proto::maitred_server::MaitredServer;
use wire::{Fault, ports, vsh};

use crate::boot::{self, CommandLine, Times};
use crate::container::Containers;
use crate::disk::Disk;
use crate::{init, log, network, resolver, vshd};

/// The host may still be opening its side when the first agent reports; a retry costs nothing.
const READY_TRIES: u32 = 50;
const READY_PAUSE: Duration = Duration::from_millis(100);

/// How long answers that are under way may take to leave once the machine is to end.
const FAREWELL: Duration = Duration::from_millis(300);

/// What all calls share.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) boot: Times,
    /// From PID 1's first instruction to the report to the host.
    pub(crate) init_to_ready: OnceLock<Duration>,
    pub(crate) disk: Disk,
    pub(crate) containers: Containers,
    /// The containers' bridge is there.
    pub(crate) bridge: OnceCell<()>,
    /// Their addresses are translated.
    pub(crate) translation: OnceCell<()>,
    /// The machine is to end.
    pub(crate) power_off: Notify,
}

/// Runs the agent in this process, a copy of PID 1. The exit code tells PID 1 how to go on.
pub(crate) fn run(boot: Times) -> ExitCode {
    // What `ps` in the VM shows; a name that cannot be set is no reason not to serve.
    let _ = rustix::thread::set_name(c"maitred-agent");
    let line = CommandLine::read();
    log::start(line.log.as_deref());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime
        .map_err(|error| Fault::internal(&error))
        .and_then(|runtime| {
            let agent = Arc::new(Agent::new(boot));
            let result = runtime.block_on(serve(agent, line.token));
            runtime.shutdown_background();
            result
        });
    match served {
        Ok(()) => ExitCode::from(init::POWER_OFF),
        Err(fault) => {
            tracing::error!(causes = ?fault.parts().causes, "{fault}");
            ExitCode::FAILURE
        }
    }
}

impl Agent {
    fn new(boot: Times) -> Self {
        Self {
            boot,
            init_to_ready: OnceLock::new(),
            disk: Disk::default(),
            containers: Containers::on_disk(),
            bridge: OnceCell::new(),
            translation: OnceCell::new(),
            power_off: Notify::new(),
        }
    }

    /// Returns when the containers' bridge is there.
    pub(crate) async fn bridged(&self) -> Result<(), Fault> {
        self.bridge
            .get_or_try_init(|| async { network::bridge() })
            .await
            .map(drop)
    }

    /// Returns when containers can reach what is outside the VM.
    pub(crate) async fn translated(&self) -> Result<(), Fault> {
        self.bridged().await?;
        self.translation
            .get_or_try_init(network::translate)
            .await
            .map(drop)
    }
}

async fn serve(agent: Arc<Agent>, token: String) -> Result<(), Fault> {
    let unreachable =
        |error: &std::io::Error| Fault::internal(error).while_doing("cannot listen for the host");
    let calls = link::guest::listen(ports::MAITRED).map_err(|e| unreachable(&e))?;
    let shells = link::guest::listen(ports::VSHD).map_err(|e| unreachable(&e))?;
    tokio::spawn(vshd::serve(shells));
    tokio::spawn(prepare(Arc::clone(&agent)));
    tokio::spawn(report(Arc::clone(&agent), token));
    let same = link::request::same_protocol;
    let ended = Arc::clone(&agent);
    let server = Server::builder()
        .add_service(MaitredServer::with_interceptor(
            Calls(Arc::clone(&agent)),
            same,
        ))
        .add_service(ContainersServer::with_interceptor(
            Calls(Arc::clone(&agent)),
            same,
        ))
        .serve_with_incoming_shutdown(calls, async move { ended.power_off.notified().await });
    tokio::pin!(server);
    tokio::select! {
        result = &mut server => return result.map_err(|error| Fault::internal(&error)),
        () = agent.power_off.notified() => {}
    }
    // Connections that the host keeps open need not be waited for.
    let _ = tokio::time::timeout(FAREWELL, server).await;
    Ok(())
}

/// The services of the host, both on the same agent.
#[derive(Clone, Debug)]
pub(crate) struct Calls(pub(crate) Arc<Agent>);

/// Does in the background what the first calls will wait for.
async fn prepare(agent: Arc<Agent>) {
    let resolver = async {
        agent.bridged().await?;
        resolver::start().await
    };
    let (disk, translation, resolver) =
        tokio::join!(agent.disk.mounted(), agent.translated(), resolver);
    for fault in [disk, translation, resolver]
        .into_iter()
        .filter_map(Result::err)
    {
        tracing::error!(causes = ?fault.parts().causes, "{fault}");
    }
}

/// Tells the host that the agent listens.
async fn report(agent: Arc<Agent>, token: String) {
    let since_init = boot::uptime().saturating_sub(agent.boot.kernel_to_init);
    let init_to_ready = *agent.init_to_ready.get_or_init(|| since_init);
    let ready = Ready {
        token,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_to_init_us: microseconds(agent.boot.kernel_to_init),
        init_to_ready_us: microseconds(init_to_ready),
    };
    let mut frame = Vec::with_capacity(4 + ready.encoded_len());
    vsh::encode(&ready, &mut frame);
    for _ in 0..READY_TRIES {
        match send(&frame).await {
            Ok(()) => return tracing::info!(?init_to_ready, "reported to the host"),
            Err(error) => tracing::debug!("cannot report to the host yet: {error}"),
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
    tracing::error!("the host does not listen for the report");
}

async fn send(frame: &[u8]) -> std::io::Result<()> {
    let mut host = link::guest::connect(ports::READY).await?;
    host.write_all(frame).await?;
    host.shutdown().await
}

/// Returns `time` in whole microseconds.
pub(crate) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
