//! Addresses of the VM, its bridge and its containers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::{Fault, Kind};

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
}

/// The bridge's address, gateway and resolver of containers: from the range that ChromeOS uses for the same
/// (100.115.92.0/23, inside RFC 6598's, so that no home or company network clashes).
pub(crate) const BRIDGE_V4: Interface = Interface {
    address: IpAddr::V4(Ipv4Addr::new(100, 115, 93, 1)),
    prefix: 24,
};

/// The same for IPv6, unique local (RFC 4193). Nobody routes it outside the VM, so it can be the same in each.
pub(crate) const BRIDGE_V6: Interface = Interface {
    address: IpAddr::V6(PREFIX_V6),
    prefix: 64,
};

const PREFIX_V6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0x6573, 0x7475, 0x646f, 0, 0, 0, 1);

/// Returns the address of the container with `number`.
pub(crate) const fn container_v4(number: u8) -> Interface {
    Interface {
        address: IpAddr::V4(Ipv4Addr::new(100, 115, 93, number)),
        prefix: 24,
    }
}

/// Returns the IPv6 address of the container with `number`.
pub(crate) const fn container_v6(number: u8) -> Interface {
    let [a, b, c, d, ..] = PREFIX_V6.segments();
    let address = Ipv6Addr::new(a, b, c, d, 0, 0, 0, number as u16);
    Interface {
        address: IpAddr::V6(address),
        prefix: 64,
    }
}

impl std::fmt::Display for Interface {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix)
    }
}

/// Reads `address/prefix`.
pub(super) fn parse(text: &str) -> Result<Interface, Fault> {
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        let address: IpAddr = address.parse().ok()?;
        let prefix: u8 = prefix.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Interface { address, prefix })
    });
    parsed.ok_or_else(|| refused(text))
}

/// Reads a gateway's address; empty means none.
pub(super) fn parse_gateway(text: &str) -> Result<Option<IpAddr>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| refused(text))
}

fn refused(text: &str) -> Fault {
    Fault::new(
        Kind::Invalid,
        "E-NETWORK-ADDRESS",
        format!("{text:?} is not a network address"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_prefix_that_fits() {
        assert_eq!(parse("100.115.93.1/24").unwrap(), BRIDGE_V4);
        assert_eq!(parse("fd74:6573:7475:646f::1/64").unwrap(), BRIDGE_V6);
        for wrong in ["", "1.2.3.4", "1.2.3.4/33", "1.2.3/8", "::1/129", "a/b"] {
            assert!(parse(wrong).is_err(), "{wrong:?} was accepted");
        }
        assert_eq!(parse_gateway("").unwrap(), None);
        assert!(parse_gateway("1.2.3.4/24").is_err());
    }

    #[test]
    fn containers_live_in_the_bridges_networks() {
        assert_eq!(container_v4(10).to_string(), "100.115.93.10/24");
        assert_eq!(container_v6(10).to_string(), "fd74:6573:7475:646f::a/64");
    }
}
