//! The framing of `proto/vsh.proto` and `proto/ready.proto`: u32 little-endian length, then one message.

use prost::Message;
use thiserror::Error;

/// Most bytes of stdin, stdout or stderr in one frame: large enough that copying dominates, small enough that a
/// keystroke never waits long behind output.
pub const DATA_MAX: usize = 64 << 10;

/// Longest frame: the data, or a Setup with its environment, whichever is larger, and room for the envelope.
pub const FRAME_MAX: usize = 256 << 10;

/// Code of the fault when the program does not exist; clients exit with 127.
pub const COMMAND_NOT_FOUND: &str = "E-COMMAND-NOT-FOUND";

/// Code of the fault when the program exists and cannot be executed; clients exit with 126.
pub const COMMAND_DENIED: &str = "E-COMMAND-DENIED";

/// Why a frame was refused.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The peer announced more than [`FRAME_MAX`].
    #[error("frame of {length} bytes is longer than the allowed {FRAME_MAX}")]
    Long {
        /// Announced bytes.
        length: usize,
    },
    /// The bytes are not the message.
    #[error("cannot decode frame")]
    Decode(#[source] prost::DecodeError),
}

/// Appends `message` as one frame to `out`.
pub fn encode(message: &impl Message, out: &mut Vec<u8>) {
    let length = u32::try_from(message.encoded_len()).expect("callers split data at DATA_MAX");
    out.extend_from_slice(&length.to_le_bytes());
    message.encode_raw(out);
}

/// Takes one whole frame off the front of `buffer`; `None` when more bytes are needed.
///
/// # Errors
/// When the length is over [`FRAME_MAX`] or the message cannot be decoded; the stream is useless then.
pub fn decode<M: Message + Default>(buffer: &mut Vec<u8>) -> Result<Option<M>, FrameError> {
    let Some(head) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*head) as usize;
    if length > FRAME_MAX {
        return Err(FrameError::Long { length });
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let message = M::decode(&buffer[4..4 + length]).map_err(FrameError::Decode)?;
    buffer.drain(..4 + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{VshRequest, vsh_request::Request};

    #[test]
    fn frames_come_back_whole_however_they_arrive() {
        let sent = VshRequest {
            request: Some(Request::Stdin(vec![0, 255, b'\n'])),
        };
        let mut bytes = Vec::new();
        encode(&sent, &mut bytes);
        encode(&sent, &mut bytes);
        let mut buffer = Vec::new();
        let mut got = 0;
        for byte in bytes {
            buffer.push(byte);
            while let Some(message) = decode::<VshRequest>(&mut buffer).unwrap() {
                assert_eq!(message, sent);
                got += 1;
            }
        }
        assert_eq!((got, buffer.len()), (2, 0));
    }

    #[test]
    fn a_long_frame_is_refused_before_it_is_read() {
        let mut buffer = u32::MAX.to_le_bytes().to_vec();
        assert!(matches!(
            decode::<VshRequest>(&mut buffer),
            Err(FrameError::Long { .. })
        ));
    }
}
