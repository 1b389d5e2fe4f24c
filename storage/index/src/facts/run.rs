//! An immutable run of facts on disk: opened, verified, read a block at a time where it lies.
//!
//! ```text
//!   open: footer (pread, CRC) -> directory (pread, CRC, bounds) -> map
//!   read: directory in memory -> one block (pread, CRC, once) -> keys in the map, by halves
//! ```
//! Invariants: foreign bytes never panic; what was verified is remembered per block; a run is shared by count between
//! threads and never changes. Deliberately absent: what holds when (`view.rs`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::FactFloors;
use super::directory::{self, BlockEntry, FOOTER_BYTES, Footer, HEADER_BYTES, Taken, VERSION};
use super::key::{KeyRef, Order};
use crate::columns::wire::Malformed;
use crate::map::Mapped;
use crate::{IndexError, RunMeta};

/// A run of facts that is open for reading.
pub struct FactRun {
    meta: RunMeta,
    file: File,
    map: Mapped,
    blocks: Vec<BlockEntry>,
    taken: Vec<Taken>,
    verified: Vec<AtomicBool>,
}

impl FactRun {
    /// Opens a run. **Errors:** [`IndexError::Corrupt`] for whatever is not what was written. **Cost:** reads the
    /// directory; blocks are verified when they are first used.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
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
        directory::read_header(&header).map_err(corrupt(0))?;
        let footer_at = len - FOOTER_BYTES as u64;
        let mut bytes = [0; FOOTER_BYTES];
        file.read_exact_at(&mut bytes, footer_at).map_err(io(footer_at))?;
        let footer = Footer::read(&bytes, len).map_err(corrupt(footer_at))?.map_err(|found| IndexError::Version {
            file: path.to_owned(),
            found,
            supported: VERSION,
        })?;
        // The footer's arithmetic says that this is less than the file's length.
        let mut bytes = vec![0; footer.directory_len() as usize];
        file.read_exact_at(&mut bytes, footer.directory_offset).map_err(io(footer.directory_offset))?;
        let (expected, found) = (footer.directory_crc.into(), crc32fast::hash(&bytes).into());
        if expected != found {
            let malformed = Malformed { at: 0, what: "a directory's checksum", expected, found };
            return Err(corrupt(footer.directory_offset)(malformed));
        }
        let (blocks, taken) = directory::read(&bytes, &footer).map_err(corrupt(footer.directory_offset))?;
        let map = Mapped::new(&file).map_err(io(0))?;
        let verified = blocks.iter().map(|_| AtomicBool::new(false)).collect();
        let Footer { datoms, tx_min, tx_max, hash, .. } = footer;
        let kind = super::FACTS_KIND;
        let (path, count) = (path.to_owned(), footer.blocks);
        let meta = RunMeta { path, bytes: len, hash, kind, rows: datoms, blocks: count, tx_min, tx_max };
        Ok(Self { meta, file, map, blocks, taken, verified })
    }

    /// What a manifest says of it; its rows are datoms.
    #[must_use]
    pub fn meta(&self) -> &RunMeta {
        &self.meta
    }

    /// Datoms that are gone once this run is merged with all that are older: each retraction below the horizon of its
    /// attribute, and the assertion that it took back. An estimate, and never too high: attributes whose retractions do not
    /// all lie below count as none.
    #[must_use]
    pub fn gone(&self, floors: &FactFloors) -> u64 {
        let below = self.taken.iter().filter(|taken| taken.last <= floors.of(taken.attribute));
        2 * below.map(|taken| taken.datoms).sum::<u64>()
    }

    /// Verifies every block and the content hash. Blocking; for backups and scrubbing.
    pub fn verify(&self) -> Result<(), IndexError> {
        (0..self.blocks.len()).try_for_each(|block| self.block(block).map(|_| ()))?;
        let upto = self.map.len() - FOOTER_BYTES;
        let found = xxhash_rust::xxh3::xxh3_128(&self.map[..upto]);
        if found == self.meta.hash {
            return Ok(());
        }
        let (expected, found) = (self.meta.hash as u64, found as u64);
        Err(corrupt(&self.meta.path, 0, Malformed { at: 0, what: "a file's content hash", expected, found }))
    }

    /// Keys of an order from this place on.
    pub(crate) fn from(&self, order: Order, seek: KeyRef<'_>) -> Result<RunCursor<'_>, IndexError> {
        let begins = |order: Order| self.blocks.partition_point(|block| block.order < order);
        let (start, end) = (begins(order), self.blocks.partition_point(|block| block.order <= order));
        let behind = self.blocks[start..end].partition_point(|block| KeyRef::new(&block.first) <= seek);
        let block = start + behind.saturating_sub(1);
        let mut cursor = RunCursor { run: self, block, end, open: None, at: 0 };
        if block < end {
            let open = self.block(block)?;
            cursor.at = open.find(seek).map_err(|malformed| self.corrupt(block, malformed))?;
            cursor.open = Some(open);
        }
        Ok(cursor)
    }

    /// A block, verified.
    fn block(&self, block: usize) -> Result<Block<'_>, IndexError> {
        let entry = &self.blocks[block];
        if !self.verified[block].load(Ordering::Acquire) {
            // By pread, so that a bad sector is an error and not a signal. Two threads may both do it: harmless.
            let mut bytes = vec![0; entry.len as usize];
            let io = |source| IndexError::io(&self.meta.path, entry.offset, source);
            self.file.read_exact_at(&mut bytes, entry.offset).map_err(io)?;
            let (expected, found) = (entry.crc.into(), crc32fast::hash(&bytes).into());
            if expected != found {
                return Err(self.corrupt(block, Malformed { at: 0, what: "a block's checksum", expected, found }));
            }
            self.verified[block].store(true, Ordering::Release);
        }
        let range = entry.offset as usize..(entry.offset + u64::from(entry.len)) as usize;
        Block::new(&self.map[range], entry.keys).map_err(|malformed| self.corrupt(block, malformed))
    }

    fn corrupt(&self, block: usize, malformed: Malformed) -> IndexError {
        corrupt(&self.meta.path, self.blocks[block].offset, malformed)
    }
}

/// The keys of a block, where they lie.
#[derive(Clone, Copy)]
struct Block<'a> {
    keys: u32,
    ends: &'a [[u8; 4]],
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    fn new(bytes: &'a [u8], keys: u32) -> Result<Self, Malformed> {
        let short =
            |found: usize| Malformed { at: 0, what: "a block's keys", expected: keys.into(), found: found as u64 };
        let (count, rest) = bytes.split_first_chunk::<4>().ok_or(short(0))?;
        if u32::from_le_bytes(*count) != keys {
            return Err(short(u32::from_le_bytes(*count) as usize));
        }
        let (ends, bytes) = rest.split_at_checked(keys as usize * 4).ok_or(short(rest.len()))?;
        Ok(Self { keys, ends: ends.as_chunks().0, bytes })
    }

    fn key(&self, at: u32) -> Result<KeyRef<'a>, Malformed> {
        let end = |at: u32| self.ends.get(at as usize).map(|end| u32::from_le_bytes(*end) as usize);
        let from = if at == 0 { Some(0) } else { end(at - 1) };
        let key = from.zip(end(at)).and_then(|(from, end)| self.bytes.get(from..end));
        key.map(KeyRef::new).ok_or(Malformed {
            at: u64::from(at) * 4,
            what: "a key's end",
            expected: 0,
            found: at.into(),
        })
    }

    /// The number of the first key at this place or behind it.
    fn find(&self, seek: KeyRef<'_>) -> Result<u32, Malformed> {
        let (mut low, mut high) = (0, self.keys);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle)? < seek { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }
}

/// A place in an order of a run.
pub(crate) struct RunCursor<'a> {
    run: &'a FactRun,
    block: usize,
    end: usize,
    open: Option<Block<'a>>,
    at: u32,
}

impl<'a> RunCursor<'a> {
    /// The next key.
    pub(crate) fn next(&mut self) -> Result<Option<KeyRef<'a>>, IndexError> {
        while self.block < self.end {
            let open = match self.open {
                Some(open) => open,
                None => *self.open.insert(self.run.block(self.block)?),
            };
            if self.at < open.keys {
                let key = open.key(self.at).map_err(|malformed| self.run.corrupt(self.block, malformed))?;
                self.at += 1;
                return Ok(Some(key));
            }
            (self.block, self.open, self.at) = (self.block + 1, None, 0);
        }
        Ok(None)
    }
}

fn corrupt(file: &Path, base: u64, malformed: Malformed) -> IndexError {
    let Malformed { at, what, expected, found } = malformed;
    IndexError::Corrupt { file: file.to_owned(), offset: base + at, what, expected, found }
}
