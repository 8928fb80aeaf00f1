//! What the guest may send: nothing that passt would deliver to the host's own loopback.
//!
//! passt hands a packet for 127.0.0.0/8 or 0.0.0.0/8 to the host's kernel even with `--no-map-gw` (tried with
//! Debian 12's), which takes it for itself. A guest that routes loopback outwards would reach services that
//! listen on 127.0.0.1 in the belief that only the host's users can.

/// EtherType and first byte after it (IEEE 802.3 §3.2.6).
const TYPE: usize = 12;
const PAYLOAD: usize = 14;

/// Where the destination lies in an IPv4 header (RFC 791 §3.1) and in an IPv6 header.
const V4_DESTINATION: usize = PAYLOAD + 16;
const V6_DESTINATION: usize = PAYLOAD + 24;

/// Whether a frame may leave the guest. A frame shorter than the headers that it announces may not, nor anything but ARP, IPv4 and IPv6: a VLAN tag would hide the address.
pub(crate) fn may_leave(frame: &[u8]) -> bool {
    match frame.get(TYPE..PAYLOAD) {
        Some([0x08, 0x06]) => true,
        Some([0x08, 0x00]) => frame
            .get(V4_DESTINATION..V4_DESTINATION + 4)
            .is_some_and(|to| !matches!(to[0], 0 | 127)),
        Some([0x86, 0xdd]) => frame
            .get(V6_DESTINATION..V6_DESTINATION + 16)
            .is_some_and(|to| !is_host_v6(to)),
        _ => false,
    }
}

/// `::`, `::1` and the rest of ::/96, and IPv4 in IPv6 (::ffff:0:0/96, RFC 4291 §2.5.5).
fn is_host_v6(to: &[u8]) -> bool {
    to[..10].iter().all(|byte| *byte == 0) && matches!(to[10..12], [0, 0] | [0xff, 0xff])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet's header and IPv6's, whose destination ends there (RFC 8200 §3).
    const HEAD: usize = 54;

    fn frame(kind: [u8; 2], at: usize, to: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; HEAD];
        frame[TYPE..PAYLOAD].copy_from_slice(&kind);
        frame[at..at + to.len()].copy_from_slice(to);
        frame
    }

    #[test]
    fn the_world_can_be_reached() {
        for to in [
            [192, 0, 2, 1],
            [128, 0, 0, 1],
            [255, 255, 255, 255],
            [126, 255, 255, 255],
        ] {
            assert!(may_leave(&frame([8, 0], V4_DESTINATION, &to)), "{to:?}");
        }
        for to in [[0x20, 1, 0xd, 0xb8], [0xff, 2, 0, 0], [0xfe, 0x80, 0, 0]] {
            assert!(
                may_leave(&frame([0x86, 0xdd], V6_DESTINATION, &to)),
                "{to:?}"
            );
        }
        assert!(may_leave(&frame([8, 6], PAYLOAD, &[])));
    }

    #[test]
    fn the_hosts_loopback_cannot() {
        for to in [[127, 0, 0, 1], [127, 255, 0, 9], [0, 0, 0, 0], [0, 1, 2, 3]] {
            assert!(!may_leave(&frame([8, 0], V4_DESTINATION, &to)), "{to:?}");
        }
        let mut mapped = [0; 16];
        assert!(!may_leave(&frame([0x86, 0xdd], V6_DESTINATION, &mapped)));
        mapped[15] = 1;
        assert!(!may_leave(&frame([0x86, 0xdd], V6_DESTINATION, &mapped)));
        mapped[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        assert!(!may_leave(&frame([0x86, 0xdd], V6_DESTINATION, &mapped)));
    }

    #[test]
    fn what_hides_its_address_stays() {
        assert!(!may_leave(&frame(
            [0x81, 0],
            V4_DESTINATION,
            &[192, 0, 2, 1]
        )));
        assert!(!may_leave(
            &frame([8, 0], V4_DESTINATION, &[192, 0, 2, 1])[..20]
        ));
        assert!(!may_leave(
            &frame([0x86, 0xdd], V6_DESTINATION, &[0x20])[..40]
        ));
        assert!(!may_leave(&[0; 13]));
    }
}
