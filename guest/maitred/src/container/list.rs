//! What containers there are and how each fares.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use wire::proto::{Container, ContainerState};
use wire::{ContainerName, Fault};

use super::config::Config;
use super::rootfs::Rootfs;
use super::{Containers, Home, Live, missing, subvolume};
use crate::network;

/// Where btrfs shows its accounts: one directory for each file system, in it one for each subvolume.
const ACCOUNTS: &str = "/sys/fs/btrfs";

/// Longest name of a distribution that is passed on.
const DISTRIBUTION_MAX: usize = 80;

impl Containers {
    /// Returns every container's name and configuration, by name.
    pub(super) fn all(&self) -> Vec<(ContainerName, Result<Config, Fault>)> {
        let mut all: Vec<_> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name: ContainerName = entry.file_name().to_str()?.parse().ok()?;
                Some((name, Config::load(&entry.path())))
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Describes all of them.
    pub(super) fn list(&self) -> Vec<Container> {
        let all = self.all().into_iter();
        all.map(|(name, config)| self.describe(&self.home(&name), config.ok()))
            .collect()
    }

    /// Describes one.
    pub(super) fn info(&self, name: &ContainerName) -> Result<Container, Fault> {
        let home = self.home(name);
        if !home.exists() {
            return Err(missing(name));
        }
        Ok(self.describe(&home, Config::load(home.path()).ok()))
    }

    /// Returns the addresses of a container, `None` when there is no such container.
    pub(crate) fn addresses(&self, name: &ContainerName) -> Option<[IpAddr; 2]> {
        let config = Config::load(self.home(name).path()).ok()?;
        Some(addresses(&config))
    }

    fn describe(&self, home: &Home, config: Option<Config>) -> Container {
        let mut container = describe(home, config);
        if container.state() == ContainerState::Running && self.stopping().contains(&home.name) {
            container.set_state(ContainerState::Stopping);
        }
        container
    }
}

fn describe(home: &Home, config: Option<Config>) -> Container {
    let live = Live::find(home);
    let mut container = Container {
        name: home.name.to_string(),
        distribution: distribution(home).unwrap_or_default(),
        snapshots: fs::read_dir(home.snapshots())
            .map_or(0, |all| u32::try_from(all.count()).unwrap_or(u32::MAX)),
        ..Container::default()
    };
    container.set_state(match (&live, &config) {
        (Some(_), _) => ContainerState::Running,
        (None, Some(_)) => ContainerState::Stopped,
        (None, None) => ContainerState::Broken,
    });
    if let Some(live) = &live {
        container.memory_bytes = number(&live.cgroup().join("memory.current"));
        let processes = number(&live.cgroup().join("pids.current"));
        container.processes = u32::try_from(processes).unwrap_or(u32::MAX);
    }
    if let Some(config) = config {
        container.disk_bytes = space(home, &config);
        container.created_s = config.created_s;
        if live.is_some() {
            container.addresses = addresses(&config).map(|a| a.to_string()).into();
        }
        container.user = config.user.map(|user| user.name).unwrap_or_default();
    }
    container
}

fn addresses(config: &Config) -> [IpAddr; 2] {
    [network::container_v4, network::container_v6].map(|of| of(config.number).address)
}

/// Returns what the container wrote: the accounts of all subvolumes that it has been and has.
fn space(home: &Home, config: &Config) -> u64 {
    let mut numbers = config.subvolumes.clone();
    for number in subvolume::numbers(&home.rootfs()).unwrap_or_default() {
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    let systems = fs::read_dir(ACCOUNTS).into_iter().flatten().flatten();
    let accounts = systems
        .map(|entry| entry.path().join("qgroups"))
        .find(|path| path.is_dir());
    accounts.map_or(0, |accounts| {
        let of = |n: &u64| number(&accounts.join(format!("0_{n}/exclusive")));
        numbers.iter().map(of).sum()
    })
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Returns the name that the image gives itself, without anything that a terminal would act on.
fn distribution(home: &Home) -> Option<String> {
    let rootfs = Rootfs::open(&home.rootfs()).ok()?;
    let text = rootfs
        .read("etc/os-release")
        .or_else(|_| rootfs.read("usr/lib/os-release"))
        .ok()?;
    pretty_name(&String::from_utf8_lossy(&text))
}

fn pretty_name(text: &str) -> Option<String> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let value = value.trim().trim_matches(['"', '\'']);
    Some(
        value
            .chars()
            .filter(|c| !c.is_control())
            .take(DISTRIBUTION_MAX)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distributions_name_is_cleaned() {
        let text = "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n";
        assert_eq!(
            pretty_name(text).as_deref(),
            Some("Debian GNU/Linux 13 (trixie)")
        );
        let hostile = format!("PRETTY_NAME='\u{1b}[31m{}'", "x".repeat(500));
        let cleaned = pretty_name(&hostile).unwrap();
        assert!(cleaned.starts_with("[31mxxx") && cleaned.len() == DISTRIBUTION_MAX);
        assert_eq!(pretty_name("ID=x"), None);
    }
}
