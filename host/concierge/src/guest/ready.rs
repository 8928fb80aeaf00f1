//! The guest's announcement that it is up, read on the host: one frame with this boot's token.

use std::io;
use std::time::Duration;

use prost::Message;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;
use wire::proto::Ready;

/// Longest announcement; a real one is about 100 bytes.
const FRAME_MAX: u32 = 4096;

/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 16;

/// A guest that connects and says nothing keeps a slot for this long.
const DEADLINE: Duration = Duration::from_secs(10);

/// Returns a new token: it tells this boot's announcement from an earlier one's.
pub(crate) fn token() -> io::Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(crate::disk::export::hex(&bytes))
}

/// Reads an announcement and checks its token.
///
/// # Errors
/// When it is too long, no announcement, too late, or not from this boot.
pub(crate) async fn receive(mut stream: UnixStream, token: &str) -> io::Result<Ready> {
    let read = async {
        let length = stream.read_u32_le().await?;
        if length > FRAME_MAX {
            return Err(invalid("announcement is too long"));
        }
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await?;
        Ready::decode(frame.as_slice()).map_err(io::Error::other)
    };
    let ready = timeout(DEADLINE, read).await??;
    if !same(ready.token.as_bytes(), token.as_bytes()) {
        return Err(invalid("announcement has another boot's token"));
    }
    Ok(ready)
}

/// Compares in a time that does not depend on where they differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    let differences = left.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b));
    left.len() == right.len() && differences == 0
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn said(bytes: &[u8]) -> io::Result<Ready> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).await.unwrap();
        drop(theirs);
        receive(ours, "0123").await
    }

    fn frame(token: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        let ready = Ready {
            token: token.to_owned(),
            kernel_to_init_us: 5,
            ..Ready::default()
        };
        wire::vsh::encode(&ready, &mut frame);
        frame
    }

    #[tokio::test]
    async fn this_boots_token_is_accepted() {
        assert_eq!(said(&frame("0123")).await.unwrap().kernel_to_init_us, 5);
    }

    #[tokio::test]
    async fn any_other_announcement_is_refused() {
        for wrong in ["", "0124", "01234", "012"] {
            assert!(said(&frame(wrong)).await.is_err(), "{wrong:?} was accepted");
        }
        assert!(said(&u32::MAX.to_le_bytes()).await.is_err());
        assert!(said(&[3, 0, 0, 0, 255, 255, 255]).await.is_err());
        assert!(said(&[9, 0, 0, 0, 1]).await.is_err());
    }

    #[test]
    fn tokens_differ() {
        assert_ne!(token().unwrap(), token().unwrap());
    }
}
