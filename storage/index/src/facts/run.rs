//! An immutable run of facts on disk: opened, verified, read a block at a time where it lies.
//!
//! ```text
//!   open: footer (pread, CRC) -> directory (pread, CRC, bounds) -> map
//!   read: directory in memory -> one block (pread, CRC, once) -> keys in the map, by halves
//! ```
//! Invariants: foreign bytes never panic; what was verified is remembered per block; a run is shared by count between
//! threads and never changes. Deliberately absent: what holds when (`view.rs`).

use std::ops::RangeInclusive;
use std::path::Path;

use myelin_datom::Tx;

use super::FactFloors;
use super::directory::{self, BlockEntry, FAMILY, Taken};
use super::key::{self, KeyRef, Order};
use crate::columns::wire::Malformed;
use crate::sealed::{Found, Sealed, Stretch};
use crate::{IndexError, RunMeta};

/// A run of facts that is open for reading.
pub struct FactRun {
    meta: RunMeta,
    sealed: Sealed,
    blocks: Vec<BlockEntry>,
    taken: Vec<Taken>,
}

impl FactRun {
    /// Opens a run. **Errors:** [`IndexError::Corrupt`] for whatever is not what was written. **Cost:** reads the
    /// directory; blocks are verified when they are first used.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let Found { sealed, header: (), footer, directory } = Sealed::open(path, &FAMILY, directory::read_header)?;
        let (blocks, taken) = directory::read(&directory, &footer)
            .map_err(|malformed| sealed.corrupt(footer.directory_offset, malformed))?;
        let meta = footer.meta(path, sealed.bytes());
        Ok(Self { meta, sealed, blocks, taken })
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
        self.sealed.verify(self.meta.hash)
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
        let at = Stretch { offset: entry.offset, len: entry.len.into(), crc: entry.crc };
        let txs = self.meta.tx_min..=self.meta.tx_max;
        let sound = |bytes: &[u8]| Block::new(bytes, entry.keys)?.check(entry.order, txs);
        let bytes = self.sealed.block(block, at, sound)?;
        Block::new(bytes, entry.keys).map_err(|malformed| self.corrupt(block, malformed))
    }

    fn corrupt(&self, block: usize, malformed: Malformed) -> IndexError {
        self.sealed.corrupt(self.blocks[block].offset, malformed)
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

    /// Refuses what is no key of this order, of another transaction than the run covers, or not in its turn: whoever merges
    /// runs writes what he reads.
    fn check(&self, order: Order, txs: RangeInclusive<Tx>) -> Result<(), Malformed> {
        let mut last: Option<KeyRef<'_>> = None;
        for at in 0..self.keys {
            let key = self.key(at)?;
            let said = key::said_by(order, key.bytes).is_some_and(|(tx, _)| txs.contains(&tx));
            if !said || last.is_some_and(|last| last >= key) {
                return Err(Malformed { at: 0, what: "a key", expected: order as u64, found: at.into() });
            }
            last = Some(key);
        }
        Ok(())
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
