//! Fetches an extra image from the host, unless the one on the disk is the same.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::{Fault, Kind, ports};

use crate::disk;
use crate::fault::OrFault;

const NAME: &str = "incus";

/// Larger than any image of ours will be, smaller than what would fill a disk.
const SIZE_MAX: u64 = 2 << 30;

/// A host that sends nothing for this long has gone.
const IDLE: Duration = Duration::from_secs(30);

const CHUNK: usize = 256 << 10;

/// What the host says before it sends an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Announced {
    size: u64,
    sum: [u8; 32],
}

/// Returns the path of the image, whole and as the host has it.
pub(super) fn image() -> Result<PathBuf, Fault> {
    let message = || "cannot fetch Incus from the host".to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_fault("E-EXTRAS", message)?;
    runtime.block_on(fetch(&Path::new(disk::MOUNT).join("extras")))
}

async fn fetch(folder: &Path) -> Result<PathBuf, Fault> {
    let message = || "cannot fetch Incus from the host".to_owned();
    let path = folder.join(format!("{NAME}.erofs"));
    let mut host = link::guest::connect(ports::EXTRAS)
        .await
        .or_fault("E-EXTRAS", message)?;
    let announced = announced(&mut host).await.or_fault("E-EXTRAS", message)?;
    if announced.size == 0 || announced.size > SIZE_MAX {
        let fault = Fault::new(
            Kind::NotFound,
            "E-EXTRAS-MISSING",
            "the host has no image of Incus",
        );
        return Err(fault.hint("on the host: cargo xtask image"));
    }
    if sum_of(&path).is_ok_and(|sum| sum == announced.sum) {
        return Ok(path);
    }
    let new = folder.join(format!(".{NAME}"));
    let received = receive(&mut host, announced, &new).await;
    let kept = received.and_then(|()| std::fs::rename(&new, &path));
    if kept.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    kept.or_fault("E-EXTRAS", message)?;
    Ok(path)
}

async fn announced(
    host: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
) -> io::Result<Announced> {
    host.write_all(format!("{NAME}\n").as_bytes()).await?;
    let read = async {
        let size = host.read_u64_le().await?;
        let mut sum = [0; 32];
        if size > 0 {
            host.read_exact(&mut sum).await?;
        }
        Ok(Announced { size, sum })
    };
    tokio::time::timeout(IDLE, read).await?
}

/// Writes what the host sends to `path`, and believes it only when its sum is right.
async fn receive(
    host: &mut (impl AsyncReadExt + Unpin),
    announced: Announced,
    path: &Path,
) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut hash = Sha256::new();
    let mut rest = announced.size;
    let mut chunk = vec![0; CHUNK];
    while rest > 0 {
        let wanted = chunk.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        let read = tokio::time::timeout(IDLE, host.read(&mut chunk[..wanted])).await??;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&chunk[..read]);
        file.write_all(&chunk[..read])?;
        rest -= read as u64;
    }
    if hash.finalize()[..] != announced.sum {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its checksum is wrong",
        ));
    }
    file.sync_all()
}

fn sum_of(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&chunk[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(bytes: &[u8]) -> Announced {
        Announced {
            size: bytes.len() as u64,
            sum: Sha256::digest(bytes).into(),
        }
    }

    #[tokio::test]
    async fn only_a_whole_and_right_image_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let bytes = vec![7; CHUNK + 10];
        receive(&mut &bytes[..], announce(&bytes), &path)
            .await
            .unwrap();
        assert_eq!(sum_of(&path).unwrap(), announce(&bytes).sum);
        let cut = receive(&mut &bytes[..CHUNK], announce(&bytes), &path).await;
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut wrong = announce(&bytes);
        wrong.sum[0] ^= 1;
        let wrong = receive(&mut &bytes[..], wrong, &path).await;
        assert_eq!(wrong.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_host_without_the_image_says_so_with_a_size_of_zero() {
        let (mut guest, mut host) = tokio::io::duplex(64);
        let asked = tokio::spawn(async move { announced(&mut guest).await });
        let mut line = [0; 6];
        host.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"incus\n");
        host.write_u64_le(0).await.unwrap();
        assert_eq!(asked.await.unwrap().unwrap().size, 0);
    }
}
