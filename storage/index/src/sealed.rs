//! A sealed file that is open for reading, whatever its blocks hold: rows of columns, or keys of facts.
//!
//! ```text
//!   open: header -> footer (CRC, version) -> directory (CRC)       all by pread, then the map
//!   read: block (pread, CRC, once) -> its bytes in the map
//! ```
//! Invariants: foreign bytes never panic; a block is verified before it is read through the map, and that is remembered.
//! Deliberately absent: what the footer says (`footer.rs`); what header, directory and blocks say (`columns/`, `facts/`), and writing (`file.rs`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::IndexError;
use crate::columns::wire::Malformed;
use crate::footer::{FOOTER_BYTES, Family, Footer};
use crate::map::Mapped;

pub(crate) const HEADER_BYTES: usize = 64;

/// Bytes of a file, and their CRC-32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub offset: u64,
    pub len: u64,
    pub crc: u32,
}

/// A file that is open, and which of its blocks were verified.
pub(crate) struct Sealed {
    path: PathBuf,
    file: File,
    map: Mapped,
    verified: Vec<AtomicBool>,
}

/// A file as it was found.
pub(crate) struct Found<H> {
    pub sealed: Sealed,
    pub header: H,
    pub footer: Footer,
    /// The directory's bytes, verified.
    pub directory: Vec<u8>,
}

impl Sealed {
    /// Opens a file. **Errors:** [`IndexError::Corrupt`] for whatever is not what was written. **Cost:** reads the directory.
    pub(crate) fn open<H>(
        path: &Path,
        family: &Family,
        read_header: impl FnOnce(&[u8; HEADER_BYTES]) -> Result<H, Malformed>,
    ) -> Result<Found<H>, IndexError> {
        let io = |offset| move |source| IndexError::io(path, offset, source);
        let corrupt = |base| move |malformed| corrupt(path, base, malformed);
        let file = File::open(path).map_err(io(0))?;
        let len = file.metadata().map_err(io(0))?.len();
        let least = (HEADER_BYTES + FOOTER_BYTES) as u64;
        if len < least {
            let malformed = Malformed { at: len, what: "a file's length", expected: least, found: len };
            return Err(corrupt(0)(malformed));
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(io(0))?;
        let header = read_header(&header).map_err(corrupt(0))?;
        let footer_at = len - FOOTER_BYTES as u64;
        let mut bytes = [0; FOOTER_BYTES];
        file.read_exact_at(&mut bytes, footer_at).map_err(io(footer_at))?;
        let footer = Footer::read(family, &bytes, len)
            .map_err(corrupt(footer_at))?
            .map_err(|found| IndexError::Version { file: path.to_owned(), found, supported: *family.versions.end() })?;
        let Stretch { offset, len, crc } = footer.directory(family);
        // The footer's arithmetic says that this is less than the file's length.
        let mut directory = vec![0; len as usize];
        file.read_exact_at(&mut directory, offset).map_err(io(offset))?;
        let (expected, found) = (crc.into(), crc32fast::hash(&directory).into());
        if expected != found {
            let malformed = Malformed { at: 0, what: "a directory's checksum", expected, found };
            return Err(corrupt(offset)(malformed));
        }
        let map = Mapped::new(&file).map_err(io(0))?;
        let verified = (0..footer.blocks).map(|_| AtomicBool::new(false)).collect();
        Ok(Found { sealed: Self { path: path.to_owned(), file, map, verified }, header, footer, directory })
    }

    /// **Units:** bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// The bytes of the block with this number, verified; what else has to hold for it `sound` looks at, once. **Panics** when
    /// the stretch is not within the file: a sound directory says where it lies.
    pub(crate) fn block(
        &self,
        block: usize,
        at: Stretch,
        sound: impl FnOnce(&[u8]) -> Result<(), Malformed>,
    ) -> Result<&[u8], IndexError> {
        let range = at.offset as usize..(at.offset + at.len) as usize;
        if !self.verified[block].load(Ordering::Acquire) {
            // By pread, so that a bad sector is an error and not a signal. Two threads may both do it: harmless.
            let mut bytes = vec![0; at.len as usize];
            let io = |source| IndexError::io(&self.path, at.offset, source);
            self.file.read_exact_at(&mut bytes, at.offset).map_err(io)?;
            let (expected, found) = (at.crc.into(), crc32fast::hash(&bytes).into());
            if expected != found {
                return Err(self.corrupt(at.offset, Malformed { at: 0, what: "a block's checksum", expected, found }));
            }
            sound(&bytes).map_err(|malformed| self.corrupt(at.offset, malformed))?;
            self.verified[block].store(true, Ordering::Release);
        }
        Ok(&self.map[range])
    }

    /// Compares the whole file with its content hash. Blocks were verified before, so that the map may be read.
    pub(crate) fn verify(&self, hash: u128) -> Result<(), IndexError> {
        let upto = self.map.len() - FOOTER_BYTES;
        let found = xxhash_rust::xxh3::xxh3_128(&self.map[..upto]);
        if found == hash {
            return Ok(());
        }
        let (expected, found) = (hash as u64, found as u64);
        Err(self.corrupt(0, Malformed { at: 0, what: "a file's content hash", expected, found }))
    }

    /// The error of what was found behind this place.
    pub(crate) fn corrupt(&self, base: u64, malformed: Malformed) -> IndexError {
        corrupt(&self.path, base, malformed)
    }
}

fn corrupt(file: &Path, base: u64, malformed: Malformed) -> IndexError {
    let Malformed { at, what, expected, found } = malformed;
    IndexError::Corrupt { file: file.to_owned(), offset: base + at, what, expected, found }
}
