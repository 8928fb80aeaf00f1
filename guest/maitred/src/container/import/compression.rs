//! Undoes whatever compression a stream begins with.

use std::io::{self, BufRead, BufReader, Read};

/// Bytes that a frame of zstd may refer back over (2^27 = 128 MiB, what `zstd --ultra -22 --long` needs). More
/// would let a few bytes claim gigabytes of memory.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Memory that an xz stream may ask for; `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 160 << 20;

const LOOK: usize = 64 << 10;

/// Returns a reader of the plain bytes of `stream`: gzip, zstd, xz, bzip2, or as they are.
pub(super) fn plain<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(LOOK, Begin::new(stream)?);
    Ok(match stream.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let decoder = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(stream, decoder))
        }
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(stream)),
        _ => Box::new(stream),
    })
}

/// Gives out a stream's first bytes together, in however small pieces they arrive.
struct Begin<R> {
    head: io::Cursor<Vec<u8>>,
    rest: R,
}

impl<R: Read> Begin<R> {
    /// The longest mark above.
    const LENGTH: u64 = 6;

    fn new(mut stream: R) -> io::Result<Self> {
        let mut head = Vec::new();
        stream.by_ref().take(Self::LENGTH).read_to_end(&mut head)?;
        Ok(Self {
            head: io::Cursor::new(head),
            rest: stream,
        })
    }
}

impl<R: Read> Read for Begin<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.head.read(out)? {
            0 => self.rest.read(out),
            read => Ok(read),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A stream that gives one byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let length = out.len().min(1);
            self.0.read(&mut out[..length])
        }
    }

    fn check(packed: &[u8]) {
        let mut text = String::new();
        plain(Slow(packed))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "a tarball");
    }

    #[test]
    fn every_compression_is_recognized() {
        let text = b"a tarball";
        check(text);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        check(&gzip.finish().unwrap());
        check(&zstd::encode_all(&text[..], 1).unwrap());
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(text).unwrap();
        check(&xz.finish().unwrap());
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(text).unwrap();
        check(&bzip2.finish().unwrap());
    }

    #[test]
    fn cut_and_empty_streams_are_errors_or_empty() {
        let packed = zstd::encode_all(&[7; 100_000][..], 1).unwrap();
        let mut all = Vec::new();
        let cut = &packed[..packed.len() - 2];
        assert!(plain(cut).unwrap().read_to_end(&mut all).is_err());
        assert_eq!(plain(&b""[..]).unwrap().read_to_end(&mut all).unwrap(), 0);
    }
}
