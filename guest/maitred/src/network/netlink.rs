//! Links, addresses and routes by rtnetlink (rtnetlink(7)): the five requests that are needed, without starting
//! a program for each.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use super::address::Interface;

// linux/rtnetlink.h, linux/netlink.h, linux/if_link.h, linux/if_addr.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const REQUEST_ACK: u16 = 1 | 4;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const REPLACE: u16 = 0x100;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: a second of waiting for a network in which we give out every address.
const IFA_F_NODAD: u8 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const HEADER: usize = 16;
const EEXIST: i32 = 17;

/// A connection to the kernel's network configuration.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Switches interface `index` on, with another MTU if one is given.
    pub(super) fn set_up(&mut self, index: u32, mtu: Option<u32>) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, REQUEST_ACK);
        message.link(index, IFF_UP);
        if let Some(mtu) = mtu {
            message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        }
        self.ask(message)
    }

    /// Makes a bridge; one that exists is kept.
    pub(super) fn add_bridge(&mut self, name: &str) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, REQUEST_ACK | CREATE | EXCLUSIVE);
        message.link(0, 0);
        message.attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
        let mut kind = Message::nested();
        kind.attribute(IFLA_INFO_KIND, b"bridge\0");
        message.attribute(IFLA_LINKINFO, &kind.bytes);
        exists_is_fine(self.ask(message))
    }

    /// Adds an address; one that exists is kept.
    pub(super) fn add_address(&mut self, index: u32, interface: Interface) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWADDR, REQUEST_ACK | CREATE | EXCLUSIVE);
        let flags = if interface.address.is_ipv6() {
            IFA_F_NODAD
        } else {
            0
        };
        message
            .bytes
            .extend([family(interface.address), interface.prefix, flags, 0]);
        message.bytes.extend(index.to_ne_bytes());
        let address = octets(interface.address);
        message.attribute(IFA_LOCAL, &address);
        message.attribute(IFA_ADDRESS, &address);
        exists_is_fine(self.ask(message))
    }

    /// Sends everything that has no better route to `gateway`, instead of an earlier one.
    pub(super) fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWROUTE, REQUEST_ACK | CREATE | REPLACE);
        let (family, table) = (family(gateway), RT_TABLE_MAIN);
        message.bytes.extend([
            family,
            0,
            0,
            0,
            table,
            RTPROT_STATIC,
            0,
            RTN_UNICAST,
            0,
            0,
            0,
            0,
        ]);
        message.attribute(RTA_GATEWAY, &octets(gateway));
        message.attribute(RTA_OIF, &index.to_ne_bytes());
        self.ask(message)
    }

    /// Sends `message` and waits for the kernel's yes or no.
    fn ask(&mut self, message: Message) -> io::Result<()> {
        self.sequence += 1;
        send(
            &self.socket,
            &message.finish(self.sequence),
            SendFlags::empty(),
        )?;
        let mut answer = [0; 4096];
        loop {
            let (_, length) = recv(&self.socket, &mut answer, RecvFlags::empty())?;
            if let Some(result) = acknowledgement(&answer[..length], self.sequence) {
                return result;
            }
        }
    }
}

/// Reads the kernel's answer to request `sequence`; `None` when it is about something else.
fn acknowledgement(answer: &[u8], sequence: u32) -> Option<io::Result<()>> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let about = u32::from_ne_bytes(answer.get(8..12)?.try_into().ok()?);
    if kind != NLMSG_ERROR || about != sequence {
        return None;
    }
    let code = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    Some(if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(-code))
    })
}

fn exists_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(EEXIST) => Ok(()),
        other => other,
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A request being written: header, fixed part, attributes, each padded to four bytes.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self { bytes }
    }

    fn nested() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Writes `struct ifinfomsg`.
    fn link(&mut self, index: u32, up: u32) {
        self.bytes.extend([0; 4]);
        for field in [index, up, up] {
            self.bytes.extend(field.to_ne_bytes());
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("attributes written here are short");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("requests are short");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_length_number_and_padding() {
        let mut message = Message::new(RTM_NEWLINK, REQUEST_ACK);
        message.link(7, IFF_UP);
        message.attribute(IFLA_IFNAME, b"lo\0");
        let bytes = message.finish(9);
        assert_eq!(bytes.len(), 16 + 16 + 8);
        assert_eq!(bytes[..4], 40_u32.to_ne_bytes());
        assert_eq!(bytes[8..12], 9_u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 7_u32.to_ne_bytes());
        assert_eq!(bytes[32..34], 7_u16.to_ne_bytes());
    }

    #[test]
    fn the_kernel_answers_this_machine() {
        let mut netlink = Netlink::open().unwrap();
        let error = netlink.set_up(u32::MAX >> 1, None).unwrap_err();
        // No such interface, or not allowed to ask: either way an answer to this very request.
        assert!(matches!(error.raw_os_error(), Some(19 | 1)), "{error}");
    }

    #[test]
    fn answers_to_others_and_cut_answers_are_passed_over() {
        let mut answer = vec![0; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        answer[8..12].copy_from_slice(&5_u32.to_ne_bytes());
        answer[16..20].copy_from_slice(&(-EEXIST).to_ne_bytes());
        assert!(acknowledgement(&answer, 4).is_none());
        assert!(acknowledgement(&answer[..18], 5).is_none());
        let error = acknowledgement(&answer, 5).unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EEXIST));
    }
}
