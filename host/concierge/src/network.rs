//! The VM's way out on the host: one `passt` for each VM, which carries the guest's connections on ordinary
//! sockets of this user, and the addresses that the guest is told.
//!
//! passt derives its addresses from the loopback interface (`-i lo`) and is told ours, so that it starts on a
//! machine that is offline and goes on when the machine's network changes: its sockets are bound to no
//! interface. Every VM has the same addresses, since no two of them share a network.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use spec::device::MacAddress;
use wire::proto::Network;

use crate::child::{self, Child};
use crate::log::Log;
use crate::programs;

/// The program.
const PROGRAM: &str = "passt";

/// From the shared address space of RFC 6598, as ChromeOS does: no home or office network is there.
const IPV4: &str = "100.115.92.2";
const IPV4_GATEWAY: &str = "100.115.92.1";
const IPV4_PREFIX: &str = "24";

/// A unique local network (RFC 4193).
const IPV6: &str = "fd54:6573:7475:646f::2";
const IPV6_GATEWAY: &str = "fd54:6573:7475:646f::1";
const IPV6_PREFIX: &str = "64";

/// The gateway's Ethernet address, locally administered.
const GATEWAY_MAC: &str = "52:54:00:74:73:01";

/// The guest's Ethernet address, locally administered.
pub(crate) const GUEST_MAC: MacAddress = MacAddress([0x52, 0x54, 0x00, 0x74, 0x73, 0x02]);

/// The most passt takes in one frame. What leaves the host is cut by the host's own TCP, so nothing is lost on
/// the way, and a download costs a fortieth of the interrupts.
pub(crate) const MTU: u16 = 65520;

/// What waits on the way between passt and the card, if the kernel allows that much (`net.core.wmem_max`).
const SOCKET_BYTES: usize = 4 << 20;

/// Returns whether there is a passt.
pub(crate) fn is_installed() -> bool {
    programs::find(PROGRAM).is_some()
}

/// Starts passt and returns it with the stream that carries its frames.
///
/// # Errors
/// `NotFound` when it is not installed; anything else when it cannot be started.
pub(crate) fn start(log: &Log) -> io::Result<(Child, OwnedFd)> {
    let program = programs::find(PROGRAM).ok_or(io::ErrorKind::NotFound)?;
    let (ours, theirs) = UnixStream::pair()?;
    // passt drops what its socket does not take at once, and its TCP waits for seconds then: 2 MB/s instead of 100.
    rustix::net::sockopt::set_socket_send_buffer_size(&theirs, SOCKET_BYTES)?;
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, SOCKET_BYTES)?;
    let descriptor = theirs.as_raw_fd().to_string();
    let arguments = [
        "--foreground",
        "--quiet",
        "--stderr",
        "--fd",
        &descriptor,
        "--interface",
        "lo",
        // The gateway's address does not stand for this host, and nothing listens here for the guest.
        "--no-map-gw",
        "--tcp-ports",
        "none",
        "--udp-ports",
        "none",
        // The guest is told its addresses by us; neighbour discovery stays, the gateway is found by it.
        "--no-dhcp",
        "--no-dhcpv6",
        "--no-ra",
        "--mac-addr",
        GATEWAY_MAC,
        "--address",
        IPV4,
        "--netmask",
        IPV4_PREFIX,
        "--gateway",
        IPV4_GATEWAY,
        "--address",
        IPV6,
        "--gateway",
        IPV6_GATEWAY,
    ];
    let passt = child::start(PROGRAM, &program, &arguments, vec![theirs.into()], log)?;
    Ok((passt, ours.into()))
}

/// Returns what the guest is told. It gets an IPv6 address when this host has a way out for one.
pub(crate) fn configuration() -> Network {
    let routes = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let mut network = Network {
        ipv4_address: format!("{IPV4}/{IPV4_PREFIX}"),
        ipv4_gateway: IPV4_GATEWAY.to_owned(),
        mtu: u32::from(MTU),
        ..Network::default()
    };
    if has_default_route(&routes) {
        network.ipv6_address = format!("{IPV6}/{IPV6_PREFIX}");
        network.ipv6_gateway = IPV6_GATEWAY.to_owned();
    }
    network
}

/// Returns whether `routes`, as in `/proc/net/ipv6_route`, has a default route that leads somewhere.
fn has_default_route(routes: &str) -> bool {
    /// `RTF_REJECT` of linux/route.h: the entry that says that there is no route.
    const REJECT: u32 = 0x0200;
    routes.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, length, .., flags, device] = fields.as_slice() else {
            return false;
        };
        let flags = u32::from_str_radix(flags, 16).unwrap_or(REJECT);
        *length == "00"
            && destination.bytes().all(|digit| digit == b'0')
            && flags & REJECT == 0
            && *device != "lo"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_that_leads_nowhere_is_none() {
        let zero = "00000000000000000000000000000000";
        let entry = |flags: &str, device: &str| {
            format!("{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 {flags} {device}\n")
        };
        assert!(has_default_route(&entry("00450003", "eth0")));
        assert!(!has_default_route(&entry("00200200", "lo")));
        assert!(!has_default_route(&entry("00200200", "eth0")));
        assert!(!has_default_route(""));
        let local = entry("00450003", "eth0").replacen(
            "00000000000000000000000000000000 00",
            "fd000000000000000000000000000000 40",
            1,
        );
        assert!(!has_default_route(&local));
    }
}
