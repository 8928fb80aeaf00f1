//! Applies what the host says about this VM: clock, name, network. Applying it again changes nothing.

use std::future::Future;
use std::path::Path;
use std::time::Instant;

use wire::proto::{StageTime, VmConfiguration, VmConfigured};
use wire::{Fault, Kind, VmName};

use crate::agent::{Agent, microseconds};
use crate::fault::OrFault;
use crate::{clock, disk, network};

/// The host's time zone, for containers that are created later; kept for the next agent of this boot.
const TIMEZONE: &str = "/run/testudo/timezone";

/// Longest name in the time zone database is 32; nothing longer is one.
const TIMEZONE_MAX: usize = 64;

impl Agent {
    /// Applies `configuration`, saying how long each part took.
    pub(crate) async fn configure(
        &self,
        configuration: VmConfiguration,
    ) -> Result<VmConfigured, Fault> {
        let mut stages = Stages::default();
        let VmConfiguration {
            hostname,
            time,
            network,
            timezone,
        } = configuration;
        stages
            .run("clock", async { time.map_or(Ok(()), clock::set) })
            .await?;
        stages
            .run("name", async {
                name(&hostname).and(remember_timezone(&timezone))
            })
            .await?;
        stages.run("bridge", self.bridged()).await?;
        let card = async { network.as_ref().map_or(Ok(()), network::card) };
        stages.run("network", card).await?;
        stages.run("disk", self.disk.mounted()).await?;
        Ok(VmConfigured {
            disk: Some(disk::figures()?),
            stages: stages.0,
        })
    }
}

#[derive(Default)]
struct Stages(Vec<StageTime>);

impl Stages {
    async fn run(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<(), Fault>>,
    ) -> Result<(), Fault> {
        let begun = Instant::now();
        work.await?;
        self.0.push(StageTime {
            name: name.to_owned(),
            elapsed_us: microseconds(begun.elapsed()),
        });
        Ok(())
    }
}

fn name(hostname: &str) -> Result<(), Fault> {
    let name: VmName = hostname.parse().map_err(|error| {
        Fault::new(Kind::Invalid, "E-NAME", "cannot set the VM's host name").because(&error)
    })?;
    rustix::system::sethostname(name.as_str().as_bytes())
        .or_fault("E-CONFIGURE", || "cannot set the VM's host name".to_owned())
}

fn remember_timezone(timezone: &str) -> Result<(), Fault> {
    if !is_timezone(timezone) {
        let message = format!("{timezone:?} is not a time zone");
        return Err(Fault::new(Kind::Invalid, "E-TIMEZONE", message));
    }
    std::fs::write(TIMEZONE, timezone)
        .or_fault("E-CONFIGURE", || format!("cannot write {TIMEZONE}"))
}

/// A name of the time zone database, or nothing. It becomes a path below `zoneinfo` in containers.
fn is_timezone(name: &str) -> bool {
    let part = |part: &str| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+');
        !part.is_empty() && part.bytes().all(inside)
    };
    name.is_empty() || name.len() <= TIMEZONE_MAX && name.split('/').all(part)
}

/// Returns the host's time zone, if it has said one.
pub(crate) fn timezone() -> Option<String> {
    let name = std::fs::read_to_string(Path::new(TIMEZONE)).ok()?;
    (!name.is_empty() && is_timezone(&name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_zones_are_names_and_never_paths_upwards() {
        for good in [
            "",
            "UTC",
            "Europe/Berlin",
            "America/Argentina/Buenos_Aires",
            "Etc/GMT+5",
        ] {
            assert!(is_timezone(good), "{good:?} was refused");
        }
        for bad in [
            "../etc/passwd",
            "/etc",
            "Europe//Berlin",
            "a b",
            "x\n",
            &"a".repeat(65),
        ] {
            assert!(!is_timezone(bad), "{bad:?} was accepted");
        }
    }
}
