//! The header before each packet on the vsock queues (virtio 1.3 §5.10.6), on the host's side of the device.

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 44;

/// The host's context identifier.
pub(crate) const HOST_CID: u64 = 2;

/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub(crate) const STREAM: u16 = 1;

/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender will receive no more.
pub(crate) const SHUTDOWN_RECEIVE: u32 = 1;

/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender will send no more.
pub(crate) const SHUTDOWN_SEND: u32 = 2;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Operation {
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

impl Operation {
    fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source_cid: u64,
    pub(crate) target_cid: u64,
    pub(crate) source_port: u32,
    pub(crate) target_port: u32,
    pub(crate) length: u32,
    pub(crate) kind: u16,
    /// Nothing for a number that the standard does not have.
    pub(crate) operation: Option<Operation>,
    pub(crate) flags: u32,
    /// Bytes the sender's buffer holds in all.
    pub(crate) allocated: u32,
    /// Bytes that ever left the sender's buffer, modulo 2^32.
    pub(crate) forwarded: u32,
}

impl Header {
    /// Reads a header as the guest wrote it.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut fields = Fields { bytes };
        Self {
            source_cid: u64::from_le_bytes(fields.take()),
            target_cid: u64::from_le_bytes(fields.take()),
            source_port: u32::from_le_bytes(fields.take()),
            target_port: u32::from_le_bytes(fields.take()),
            length: u32::from_le_bytes(fields.take()),
            kind: u16::from_le_bytes(fields.take()),
            operation: Operation::from_number(u16::from_le_bytes(fields.take())),
            flags: u32::from_le_bytes(fields.take()),
            allocated: u32::from_le_bytes(fields.take()),
            forwarded: u32::from_le_bytes(fields.take()),
        }
    }

    /// Writes the header as the guest reads it.
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let operation = self.operation.map_or(0, |operation| operation as u16);
        let mut bytes = [0; HEADER_BYTES];
        let fields: [&[u8]; 10] = [
            &self.source_cid.to_le_bytes(),
            &self.target_cid.to_le_bytes(),
            &self.source_port.to_le_bytes(),
            &self.target_port.to_le_bytes(),
            &self.length.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &operation.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.allocated.to_le_bytes(),
            &self.forwarded.to_le_bytes(),
        ];
        for (byte, value) in bytes.iter_mut().zip(fields.concat()) {
            *byte = value;
        }
        bytes
    }

    /// Returns the reset that answers this packet.
    pub(crate) fn reset(&self) -> Self {
        Self {
            source_cid: self.target_cid,
            target_cid: self.source_cid,
            source_port: self.target_port,
            target_port: self.source_port,
            length: 0,
            kind: self.kind,
            operation: Some(Operation::Reset),
            flags: 0,
            allocated: 0,
            forwarded: 0,
        }
    }
}

/// What is left of a header that is being read.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self
            .bytes
            .split_first_chunk()
            .expect("the fields add up to 44 bytes");
        self.bytes = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_decode_and_known_operations_encode_back(bytes: [u8; HEADER_BYTES]) {
            let header = Header::decode(&bytes);
            if header.operation.is_some() {
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }

    #[test]
    fn fields_are_where_the_standard_has_them() {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = 3;
        bytes[8] = 2;
        bytes[16..20].copy_from_slice(&1000_u32.to_le_bytes());
        bytes[20..24].copy_from_slice(&8888_u32.to_le_bytes());
        bytes[24] = 7;
        bytes[28] = 1;
        bytes[30] = 5;
        bytes[36..40].copy_from_slice(&4096_u32.to_le_bytes());
        let header = Header::decode(&bytes);
        assert_eq!((header.source_cid, header.target_cid), (3, 2));
        assert_eq!((header.source_port, header.target_port), (1000, 8888));
        assert_eq!((header.length, header.kind), (7, STREAM));
        assert_eq!(
            (header.operation, header.allocated),
            (Some(Operation::Data), 4096)
        );
    }
}
