//! Hands an extra image to a guest that asks for it by name, on the host: the name and a line end come in; the
//! size (u64, little-endian), the SHA-256 and the bytes go out. Size 0: there is no such extra.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::image::Image;

/// Longest name with its line end.
const NAME_MAX: usize = 64;

/// Read from the file at once.
const BLOCK: usize = 256 << 10;

/// A guest that takes no bytes for this long is let go.
const DEADLINE: Duration = Duration::from_secs(30);

/// Serves one request.
///
/// # Errors
/// When the request is no name, the file cannot be read, or the guest went away.
pub(crate) async fn serve(mut stream: UnixStream, image: Image) -> io::Result<()> {
    let name = timeout(DEADLINE, name(&mut stream)).await??;
    let Some((file, size, sha256)) = image.extra(&name) else {
        return stream.write_all(&[0; 8 + 32]).await;
    };
    let mut head = size.to_le_bytes().to_vec();
    head.extend(sha256);
    stream.write_all(&head).await?;
    let mut file = tokio::fs::File::from_std(file).take(size);
    let mut block = vec![0; BLOCK];
    loop {
        let count = file.read(&mut block).await?;
        if count == 0 {
            return Ok(());
        }
        timeout(DEADLINE, stream.write_all(&block[..count])).await??;
    }
}

async fn name(stream: &mut UnixStream) -> io::Result<String> {
    let mut name = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            byte if name.len() < NAME_MAX => name.push(byte),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the name is too long",
                ));
            }
        }
    }
    String::from_utf8(name).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    async fn ask(request: &[u8]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = "11".repeat(32);
        let outputs = ["vmlinux", "root.erofs", "data.btrfs"]
            .map(|name| format!(r#""{name}":{{"sha256":"{sha256}","bytes":1}}"#))
            .join(",");
        let manifest = format!(
            r#"{{"extras":{{"more":{{"file":"m","sha256":"{sha256}"}}}},"outputs":{{{outputs}}}}}"#
        );
        for (name, content) in [
            ("vmlinux", "x"),
            ("root.erofs", "x"),
            ("data.btrfs", "x"),
            ("m", "hello"),
            ("manifest.json", &manifest),
        ] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let image = Image::open(folder.path(), folder.path().join("seen")).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(request).await.unwrap();
        let served = tokio::spawn(serve(ours, image));
        let mut answer = Vec::new();
        // A refused request is a reset: it has not been read to its end.
        let _reset = theirs.read_to_end(&mut answer).await;
        let _refused = served.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_listed_extra_comes_with_size_and_hash() {
        let mut expected = 5u64.to_le_bytes().to_vec();
        expected.extend([0x11; 32]);
        expected.extend(b"hello");
        assert_eq!(ask(b"more\n").await, expected);
    }

    #[tokio::test]
    async fn anything_else_is_not_there() {
        for name in [&b"other\n"[..], b"../manifest.json\n", b"m\n", b"\n"] {
            assert_eq!(ask(name).await, [0; 40]);
        }
        assert_eq!(ask(&[b'a'; 100]).await, b"");
    }
}
