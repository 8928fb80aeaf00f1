//! The header before each frame (virtio 1.3 §5.1.6), and the work it asks for: a checksum that the guest left undone.

use virtio_bindings::virtio_net::{VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM};

/// `struct virtio_net_hdr` with `num_buffers`, which virtio 1 always has.
pub(crate) const HEADER: usize = 12;

/// Where the fields are: two bytes each but for the first.
const FLAGS: usize = 0;
const CHECKSUM_START: usize = 6;
const CHECKSUM_OFFSET: usize = 8;
const NUM_BUFFERS: usize = 10;

/// A header as the guest wrote it or is to read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header(pub(crate) [u8; HEADER]);

impl Header {
    /// Returns the header of a frame whose checksums are known to be right.
    pub(crate) fn checked() -> Self {
        let mut header = Self::default();
        header.0[FLAGS] = VIRTIO_NET_HDR_F_DATA_VALID as u8;
        header
    }

    /// Says into how many buffers the frame was put.
    pub(crate) fn set_buffers(&mut self, count: u16) {
        self.0[NUM_BUFFERS..].copy_from_slice(&count.to_le_bytes());
    }

    /// Completes the frame's checksum if the guest left it to the device; returns false if what it says is impossible.
    ///
    /// The field already holds the sum of the pseudo header, so that what is summed up begins at `csum_start`
    /// (virtio 1.3 §5.1.6.2). A segment that the guest left to be cut is one large packet with a right sum too.
    pub(crate) fn complete(&self, frame: &mut [u8]) -> bool {
        if self.0[FLAGS] & VIRTIO_NET_HDR_F_NEEDS_CSUM as u8 == 0 {
            return true;
        }
        let start = usize::from(self.field(CHECKSUM_START));
        let offset = usize::from(self.field(CHECKSUM_OFFSET));
        let Some(covered) = frame.get_mut(start..) else {
            return false;
        };
        let sum = checksum(covered);
        match covered.get_mut(offset..).and_then(<[u8]>::first_chunk_mut) {
            Some(field) => {
                *field = sum.to_be_bytes();
                true
            }
            None => false,
        }
    }

    fn field(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }
}

/// Returns the Internet checksum of `bytes` (RFC 1071), never 0, which in UDP means that there is none.
fn checksum(bytes: &[u8]) -> u16 {
    // Eight bytes at a time in the machine's own order: the sum of 16-bit words is the same up to its byte order.
    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum: u128 = 0;
    for block in words.chunks(4096) {
        // Halves of 4096 words cannot overflow 64 bits.
        let (mut low, mut high) = (0_u64, 0_u64);
        for word in block {
            let word = u64::from_ne_bytes(*word);
            low = low.wrapping_add(word & 0xffff_ffff);
            high = high.wrapping_add(word >> 32);
        }
        sum = sum
            .wrapping_add(u128::from(low))
            .wrapping_add(u128::from(high));
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    sum = sum.wrapping_add(u128::from(u64::from_ne_bytes(last)));
    while sum > 0xffff {
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
    }
    let folded = u16::from_be_bytes((sum as u16).to_ne_bytes());
    match !folded {
        0 => u16::MAX,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §4.1, as it stands there.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        match !(sum as u16) {
            0 => u16::MAX,
            sum => sum,
        }
    }

    proptest! {
        #[test]
        fn sum_is_that_of_the_standard(bytes in prop::collection::vec(any::<u8>(), 0..70_000)) {
            prop_assert_eq!(checksum(&bytes), slow(&bytes));
        }
    }

    #[test]
    fn sum_of_ones_does_not_overflow() {
        assert_eq!(checksum(&[0xff; 65_536]), slow(&[0xff; 65_536]));
    }

    fn asking(start: u16, offset: u16) -> Header {
        let mut header = Header::default();
        header.0[FLAGS] = 1;
        header.0[CHECKSUM_START..8].copy_from_slice(&start.to_le_bytes());
        header.0[CHECKSUM_OFFSET..10].copy_from_slice(&offset.to_le_bytes());
        header
    }

    #[test]
    fn asked_sum_makes_the_whole_right() {
        let mut frame: Vec<u8> = (0..101).collect();
        // No pseudo header.
        frame[50..52].fill(0);
        assert!(asking(34, 16).complete(&mut frame));
        // A receiver that sums everything up, the sum included, gets all ones.
        assert_eq!(slow(&frame[34..]), u16::MAX);
    }

    #[test]
    fn sum_outside_of_the_frame_is_refused() {
        for (start, offset) in [
            (0, 99),
            (99, 0),
            (100, 0),
            (101, 0),
            (34, 66),
            (u16::MAX, u16::MAX),
        ] {
            assert!(
                !asking(start, offset).complete(&mut [0; 100]),
                "{start} {offset}"
            );
        }
        assert!(asking(98, 0).complete(&mut [0; 100]));
        assert!(Header::default().complete(&mut []));
    }
}
