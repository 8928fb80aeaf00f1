//! Speaks with maitred in a running VM, from the host: configuration, clock, figures, power.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::timeout;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use wire::proto::containers_client::ContainersClient;
use wire::proto::maitred_client::MaitredClient;
use wire::proto::{
    DiskFigures, Empty, Network, PowerOffRequest, Time, VmConfiguration, VmConfigured, VmFigures,
};
use wire::{Fault, Kind, VmName, ports};

use link::request::Tag;

use super::timezone;

/// Longest time for maitred to accept a connection: it said that it is up before we connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Longest time to configure: mounting a data disk after a crash replays its log.
const CONFIGURE_DEADLINE: Duration = Duration::from_secs(60);

/// Longest time for small questions. A guest that is too busy to answer is shown without figures.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Longest time for the file system to grow.
const GROW_DEADLINE: Duration = Duration::from_secs(60);

/// A client whose requests carry the metadata.
pub(crate) type Tagged = InterceptedService<Channel, Tag>;

/// The agent of one VM. Cheap to clone; follows the agent when it is restarted.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    name: VmName,
    vsock: PathBuf,
    channel: Arc<watch::Sender<Option<Channel>>>,
}

impl Agent {
    /// Returns the agent of VM `name`, to which nothing is connected yet.
    pub(crate) fn new(name: VmName, vsock: PathBuf) -> Self {
        Self {
            name,
            vsock,
            channel: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Connects to an agent that has announced itself; later calls go there.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub(crate) async fn connect(&self) -> Result<(), Fault> {
        let connect = link::hybrid::channel(&self.vsock, ports::MAITRED);
        let channel = match timeout(CONNECT_DEADLINE, connect).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(self.unreachable().because(&error)),
            Err(_) => return Err(self.unreachable().cause("no answer within 10 s")),
        };
        self.channel.send_replace(Some(channel));
        Ok(())
    }

    /// Tells the guest what its kernel command line does not say.
    ///
    /// # Errors
    /// What the guest answers, or that it does not.
    pub(crate) async fn configure(&self, network: Option<Network>) -> Result<VmConfigured, Fault> {
        let configuration = VmConfiguration {
            hostname: self.name.to_string(),
            time: Some(now()),
            network,
            timezone: timezone::name(),
        };
        let mut client = self.maitred(Tag::new())?;
        self.in_time(CONFIGURE_DEADLINE, client.configure(configuration))
            .await
    }

    /// Tells the guest the time.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn set_time(&self) -> Result<Empty, Fault> {
        let mut client = self.maitred(Tag::new())?;
        self.in_time(ANSWER_DEADLINE, client.set_time(now())).await
    }

    /// Asks how the guest is.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub(crate) async fn figures(&self) -> Result<VmFigures, Fault> {
        let mut client = self.maitred(Tag::new())?;
        self.in_time(ANSWER_DEADLINE, client.figures(Empty {}))
            .await
    }

    /// Lets the guest use a disk that has grown.
    ///
    /// # Errors
    /// What the guest answers, or that it does not.
    pub(crate) async fn grow_disk(&self) -> Result<DiskFigures, Fault> {
        let mut client = self.maitred(Tag::new())?;
        self.in_time(GROW_DEADLINE, client.grow_disk(Empty {}))
            .await
    }

    /// Asks the guest to stop its containers, within `patience`, and to end.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn power_off(&self, patience: Duration) -> Result<Empty, Fault> {
        let mut client = self.maitred(Tag::new())?;
        let request = PowerOffRequest {
            timeout_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        };
        self.in_time(patience + ANSWER_DEADLINE, client.power_off(request))
            .await
    }

    /// Returns a client of maitred's own service.
    ///
    /// # Errors
    /// When the agent has not announced itself.
    pub(crate) fn maitred(&self, tag: Tag) -> Result<MaitredClient<Tagged>, Fault> {
        let client = MaitredClient::with_interceptor(self.channel()?, tag);
        Ok(client.max_decoding_message_size(link::MESSAGE_MAX))
    }

    /// Returns a client of the containers' service.
    ///
    /// # Errors
    /// When the agent has not announced itself.
    pub(crate) fn containers(&self, tag: Tag) -> Result<ContainersClient<Tagged>, Fault> {
        let client = ContainersClient::with_interceptor(self.channel()?, tag);
        Ok(client.max_decoding_message_size(link::MESSAGE_MAX))
    }

    fn channel(&self) -> Result<Channel, Fault> {
        let channel = self.channel.borrow().clone();
        channel.ok_or_else(|| self.unreachable().cause("it has not announced itself"))
    }

    async fn in_time<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Fault> {
        match timeout(deadline, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner).map_err(faithful),
            Err(_) => Err(self
                .unreachable()
                .cause(format!("no answer within {} s", deadline.as_secs()))),
        }
    }

    fn unreachable(&self) -> Fault {
        let message = format!("the agent in {} cannot be reached", self.name);
        Fault::new(Kind::Unreachable, "E-AGENT", message)
    }
}

/// Returns the guest's fault with everything taken out that a terminal would obey, and bounded: the guest is
/// hostile.
pub(crate) fn faithful(status: tonic::Status) -> Fault {
    /// Longest text shown, of each part.
    const TEXT_MAX: usize = 2000;
    /// Most causes and lines shown.
    const PARTS_MAX: usize = 32;
    let text = |text: &str| -> String {
        crate::log::clean(text.as_bytes())
            .chars()
            .take(TEXT_MAX)
            .collect()
    };
    let mut parts = wire::proto::Fault::from(Fault::from(status));
    for list in [&mut parts.causes, &mut parts.log] {
        list.truncate(PARTS_MAX);
        for line in list.iter_mut() {
            *line = text(line);
        }
    }
    parts.code = text(&parts.code);
    parts.message = text(&parts.message);
    parts.hint = text(&parts.hint);
    parts.log_path = text(&parts.log_path);
    parts.into()
}

fn now() -> Time {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Time {
        unix_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_fault_cannot_move_the_cursor() {
        let fault = Fault::new(Kind::Busy, "E-X\x1b[2J", "no\x07\r\n").cause("x".repeat(9000));
        let clean = faithful(fault.into());
        assert_eq!(clean.kind(), Kind::Busy);
        assert_eq!(clean.parts().code, "E-X[2J");
        assert_eq!(clean.parts().message, "no");
        assert_eq!(clean.parts().causes[0].len(), 2000);
    }
}
