//! Packs and unpacks pixel rows on either side; the codec travels with every frame.
//!
//! On the same host vsock moves bytes at memory speed, so the default is no compression at all:
//! LZ4 on one core (about 0.6 GB/s) is slower than the link. It pays when the link leaves the machine.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How the bytes of a `Rows` frame are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Raw bytes.
    #[default]
    None,
    /// An LZ4 block without a size prefix.
    Lz4,
}

/// Packed rows that do not unpack to the size they declare.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// A codec number this version does not know.
    #[error("unknown codec {0}")]
    UnknownCodec(u32),
    /// LZ4 data that is damaged or unpacks beyond its declared size.
    #[error("damaged lz4 block")]
    Lz4(#[source] lz4_flex::block::DecompressError),
    /// The unpacked size differs from the declared one.
    #[error("rows unpack to {got} bytes instead of {want}")]
    Size {
        /// Bytes that came out.
        got: usize,
        /// Bytes that were declared.
        want: usize,
    },
}

impl Codec {
    /// Returns the number that stands for this codec on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
        }
    }

    /// Returns the codec for a wire number.
    ///
    /// # Errors
    /// When the number is not one of [`Codec::number`]'s.
    pub const fn from_number(number: u32) -> Result<Self, UnpackError> {
        match number {
            0 => Ok(Self::None),
            1 => Ok(Self::Lz4),
            other => Err(UnpackError::UnknownCodec(other)),
        }
    }

    /// Returns `packed` unpacked, which must be exactly `size` bytes long.
    ///
    /// # Errors
    /// When the data is damaged or of another size.
    pub fn unpack<'a>(
        self,
        packed: &'a [u8],
        size: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], UnpackError> {
        let bytes = match self {
            Self::None => packed,
            Self::Lz4 => {
                scratch.resize(size, 0);
                let got =
                    lz4_flex::block::decompress_into(packed, scratch).map_err(UnpackError::Lz4)?;
                &scratch[..got]
            }
        };
        if bytes.len() != size {
            return Err(UnpackError::Size {
                got: bytes.len(),
                want: size,
            });
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lz4_rows_come_back_whole() {
        let rows: Vec<u8> = (0..4096u32).map(|n| (n / 64) as u8).collect();
        let packed = lz4_flex::block::compress(&rows);
        let mut scratch = Vec::new();
        assert_eq!(
            Codec::Lz4
                .unpack(&packed, rows.len(), &mut scratch)
                .unwrap(),
            &rows[..]
        );
    }

    #[test]
    fn a_block_that_outgrows_its_size_is_refused() {
        let packed = lz4_flex::block::compress(&[7u8; 4096]);
        let mut scratch = Vec::new();
        assert!(matches!(
            Codec::Lz4.unpack(&packed, 100, &mut scratch),
            Err(UnpackError::Lz4(_))
        ));
        assert!(matches!(
            Codec::None.unpack(&packed, 100, &mut scratch),
            Err(UnpackError::Size { want: 100, .. })
        ));
    }
}
