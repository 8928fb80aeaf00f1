//! The VM's network: its card as the host says, and a bridge of its own for containers with address translation
//! for both families.
//!
//! ```text
//!   container eth0 ── veth ── testudo0 (bridge, resolver) ── translation ── eth0 ── host
//! ```

mod address;
mod netlink;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use wire::proto::Network;
use wire::{Fault, Kind};

pub(crate) use address::{BRIDGE_V4, BRIDGE_V6, Interface, container_v4, container_v6};
use netlink::Netlink;

use crate::fault::OrFault;
use crate::program;

/// The bridge that containers hang on.
pub(crate) const BRIDGE: &str = "testudo0";

/// The VM's own card: the only one there is, named by the kernel.
const CARD: &str = "eth0";

/// Linux's smallest MTU for IPv6 (RFC 8200 §5) and the largest that a frame can say.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 1280..=65535;

/// Rewrites the source of what leaves through the card; containers reach each other unchanged.
///
/// passt (2023 and later) announces a changed window by a segment without any flag, not even ACK. To the translation
/// that belongs to no connection, so it arrives for the VM itself, whose answer, a reset, would end the container's
/// connection at passt. Hence nothing is answered that belongs to no connection.
const TRANSLATION: &str = "\
destroy table inet testudo
table inet testudo {
  chain outbound {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 100.115.93.0/24 oifname != \"testudo0\" masquerade
    ip6 saddr fd74:6573:7475:646f::/64 oifname != \"testudo0\" masquerade
  }
  chain inbound {
    type filter hook input priority filter; policy accept;
    iifname \"eth0\" ct state invalid drop
  }
}
";

/// Switches of the kernel's network: forwarding for the containers, no waiting for router advertisements.
const SWITCHES: [(&str, &str); 4] = [
    ("/proc/sys/net/ipv4/ip_forward", "1"),
    ("/proc/sys/net/ipv6/conf/all/forwarding", "1"),
    ("/proc/sys/net/ipv6/conf/default/accept_ra", "0"),
    ("/proc/sys/net/ipv6/conf/default/accept_dad", "0"),
];

/// Brings up loopback and the containers' bridge. What is there already is kept.
pub(crate) fn bridge() -> Result<(), Fault> {
    let message = || format!("cannot make the bridge {BRIDGE}");
    for (path, value) in SWITCHES {
        if Path::new(path).exists() {
            std::fs::write(path, value).or_fault("E-NETWORK", || format!("cannot set {path}"))?;
        }
    }
    let make = || -> io::Result<()> {
        let mut netlink = Netlink::open()?;
        netlink.set_up(index("lo")?, None)?;
        netlink.add_bridge(BRIDGE)?;
        let bridge = index(BRIDGE)?;
        netlink.set_up(bridge, None)?;
        netlink.add_address(bridge, BRIDGE_V4)?;
        netlink.add_address(bridge, BRIDGE_V6)
    };
    make().or_fault("E-NETWORK", message)
}

/// Loads the rules that translate containers' addresses.
pub(crate) async fn translate() -> Result<(), Fault> {
    let message = || "cannot load the address translation".to_owned();
    let mut nft = program("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .or_fault("E-NETWORK", message)?;
    let mut rules = nft.stdin.take().expect("it was asked for");
    rules
        .write_all(TRANSLATION.as_bytes())
        .await
        .or_fault("E-NETWORK", message)?;
    drop(rules);
    let output = nft
        .wait_with_output()
        .await
        .or_fault("E-NETWORK", message)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Fault::new(Kind::Internal, "E-NETWORK", message()).cause(said))
}

/// Sets up the card with fixed addresses; applying the same again changes nothing.
pub(crate) fn card(network: &Network) -> Result<(), Fault> {
    let interfaces = [
        (&network.ipv4_address, &network.ipv4_gateway),
        (&network.ipv6_address, &network.ipv6_gateway),
    ];
    let mut parsed = Vec::new();
    for (address, gateway) in interfaces {
        if !address.is_empty() {
            parsed.push((address::parse(address)?, address::parse_gateway(gateway)?));
        }
    }
    let mtu = (network.mtu != 0).then_some(network.mtu);
    if mtu.is_some_and(|mtu| !MTU_RANGE.contains(&mtu)) {
        return Err(Fault::new(
            Kind::Invalid,
            "E-NETWORK-MTU",
            format!("an MTU of {} is not possible", network.mtu),
        ));
    }
    apply(&parsed, mtu).or_fault("E-NETWORK", || format!("cannot set up {CARD}"))
}

fn apply(interfaces: &[(Interface, Option<IpAddr>)], mtu: Option<u32>) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let card = index(CARD)?;
    netlink.set_up(card, mtu)?;
    if mtu.is_some() {
        netlink.set_up(index(BRIDGE)?, mtu)?;
    }
    for (address, gateway) in interfaces {
        netlink.add_address(card, *address)?;
        if let Some(gateway) = gateway {
            netlink.add_default_route(card, *gateway)?;
        }
    }
    Ok(())
}

/// Returns the largest packet that containers can send without being cut, if the card is there.
pub(crate) fn mtu() -> Option<u32> {
    std::fs::read_to_string(format!("/sys/class/net/{CARD}/mtu"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn index(name: &str) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    text.trim().parse().map_err(io::Error::other)
}
