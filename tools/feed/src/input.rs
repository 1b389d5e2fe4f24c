//! A file, stdin or any reader as a stream of plain bytes, with the raw bytes counted for a progress bar.
//!
//! ```text
//!   file | stdin | Read -> counted -> magic: 1f 8b -> gzip, every member
//!                                            28 b5 2f fd, 5x 2a 4d 18 -> zstd, window at most 128 MiB
//!                                            else -> as it is
//! ```
//!
//! The packing is decided by the first four bytes, never by the name. A stream that is cut short is an error, not an
//! end. Deliberately absent: a bound on the decoded size, because nothing here keeps what it decoded.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::FeedError;

/// **Units:** log2 of bytes. What the `zstd` command itself accepts without being told otherwise.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// **Units:** bytes read from the system at a time under a decompressor.
const PACKED_READ_BYTES: usize = 128 * 1024;

pub(crate) struct Input {
    pub(crate) stream: Option<Box<dyn Read + Send>>,
    pub(crate) name: String,
    packing: Option<&'static str>,
    raw_read: Arc<AtomicU64>,
    pub(crate) raw_total: Option<u64>,
}

impl Input {
    /// `-` is stdin.
    pub(crate) fn open(path: &Path) -> Result<Self, FeedError> {
        if path.as_os_str() == "-" {
            return Self::wrap(Box::new(io::stdin()), "stdin".to_owned(), None);
        }
        let name = path.display().to_string();
        let opened = File::open(path).and_then(|file| file.metadata().map(|about| (file, about)));
        match opened {
            Ok((file, about)) => {
                let total = about.is_file().then_some(about.len());
                Self::wrap(Box::new(file), name, total)
            }
            Err(cause) => Err(FeedError::Io { input: name, cause }),
        }
    }

    pub(crate) fn wrap(raw: Box<dyn Read + Send>, name: String, raw_total: Option<u64>) -> Result<Self, FeedError> {
        let raw_read = Arc::new(AtomicU64::new(0));
        let mut raw = Counted { raw, read: Arc::clone(&raw_read) };
        let mut head = Vec::with_capacity(4);
        let mut input = Self { stream: None, name, packing: None, raw_read, raw_total };
        if let Err(source) = (&mut raw).take(4).read_to_end(&mut head) {
            return Err(input.failed(source));
        }
        input.packing = packing_of(&head);
        let whole = Cursor::new(head).chain(raw);
        let stream: Box<dyn Read + Send> = match input.packing {
            None => Box::new(whole),
            Some(GZIP) => {
                let buffered = io::BufReader::with_capacity(PACKED_READ_BYTES, whole);
                Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
            }
            Some(_) => match zstd_of(whole) {
                Ok(decoder) => decoder,
                Err(source) => return Err(input.failed(source)),
            },
        };
        input.stream = Some(stream);
        Ok(input)
    }

    /// **Units:** bytes of the file as it lies there, compressed or not.
    pub(crate) fn raw_read(&self) -> u64 {
        self.raw_read.load(Ordering::Relaxed)
    }

    /// A damaged stream and a failing device ask for different things of the caller.
    pub(crate) fn failed(&self, cause: io::Error) -> FeedError {
        let input = self.name.clone();
        match self.packing {
            Some(packing) if cause.raw_os_error().is_none() => {
                FeedError::Corrupt { input, packing, at: self.raw_read(), cause }
            }
            _ => FeedError::Io { input, cause },
        }
    }
}

const GZIP: &str = "gzip";
const ZSTD: &str = "zstd";

fn packing_of(head: &[u8]) -> Option<&'static str> {
    match head {
        [0x1f, 0x8b, ..] => Some(GZIP),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Some(ZSTD),
        _ => None,
    }
}

fn zstd_of(raw: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let buffered = io::BufReader::with_capacity(PACKED_READ_BYTES, raw);
    let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(Box::new(decoder))
}

struct Counted {
    raw: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.raw.read(into)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, FeedError> {
        let mut input = Input::wrap(Box::new(Cursor::new(bytes.to_vec())), "x".to_owned(), None)?;
        let mut text = Vec::new();
        let mut stream = input.stream.take().unwrap();
        match stream.read_to_end(&mut text) {
            Ok(_) => {
                assert_eq!(input.raw_read(), bytes.len() as u64);
                Ok(text)
            }
            Err(error) => Err(input.failed(error)),
        }
    }

    #[test]
    fn every_packing_gives_the_same_bytes_also_in_several_members() {
        let (one, two) = (vec![b'a'; 100_000], b"the rest\n".to_vec());
        let both = [one.clone(), two.clone()].concat();
        let zst = |text: &[u8]| zstd::encode_all(text, 3).unwrap();
        assert_eq!(unpacked(&both).unwrap(), both);
        assert_eq!(unpacked(&[gzip(&one), gzip(&two)].concat()).unwrap(), both);
        assert_eq!(unpacked(&[zst(&one), zst(&two)].concat()).unwrap(), both);
        assert_eq!(unpacked(&[&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &zst(&two)].concat()).unwrap(), two);
        for short in [&b""[..], b"a", b"ab\n", b"abcd"] {
            assert_eq!(unpacked(short).unwrap(), short);
        }
    }

    #[test]
    fn a_packed_stream_that_is_cut_short_is_damaged_not_ended() {
        let text: Vec<u8> = (0..50_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
        for whole in [gzip(&text), zstd::encode_all(&text[..], 3).unwrap()] {
            for cut in [5, whole.len() / 2, whole.len() - 1] {
                assert!(matches!(unpacked(&whole[..cut]), Err(FeedError::Corrupt { .. })), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_zstd_frame_that_asks_for_two_gigabytes_of_window_is_refused() {
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
        assert!(matches!(unpacked(&frame), Err(FeedError::Corrupt { packing: ZSTD, .. })));
        let modest = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 0x01, 0x00, 0x00];
        assert_eq!(unpacked(&modest).unwrap(), b"");
    }
}
