//! An immutable sorted run on disk: opened, verified, read by pages.
//!
//! ```text
//!   open: footer (pread, CRC) -> directory (pread, CRC, bounds) -> map
//!   read: block (pread, CRC, once) -> column -> page, decoded into the reader's cache or buffer
//! ```
//! Invariants: foreign bytes never panic; what was verified is remembered per block; a run is shared by count between
//! threads and never changes. Deliberately absent: which rows are visible as of when (`read.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use myelin_datom::{EntityId, Tx};
use pco::wrapped::FileDecompressor;

use super::ColumnRow;
use super::block::{Block, TxPage};
use super::cache::{Cache, IDS, Page, PageKey, TXS};
use super::column::PAGE_ROWS;
use super::directory::{self, BlockEntry, FAMILY, HEADER_MAGIC, VERSION};
use super::part::{TxRun, prefix, tx_of};
use super::prune::Floors;
use super::schema::ID;
use super::wire::{Input, Malformed};
use crate::IndexError;
use crate::sealed::{Found, HEADER_BYTES, Sealed, Stretch};

/// Pages that are searched for an id one by one before the block's ids are indexed.
const PAGES_SEARCHED_MAX: usize = 4;

/// What a manifest says of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMeta {
    /// Where it is.
    pub path: PathBuf,
    /// **Units:** bytes of the file.
    pub bytes: u64,
    /// XXH3-128, seed 0, of everything before the footer.
    pub hash: u128,
    /// Number of the rows' [`Kind`](myelin_datom::Kind).
    pub kind: u8,
    /// Rows of all markets.
    pub rows: u64,
    /// Blocks of all markets.
    pub blocks: u32,
    /// The first transaction in it.
    pub tx_min: Tx,
    /// The last transaction in it.
    pub tx_max: Tx,
}

/// Where a block begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    /// Within the market.
    pub row: u32,
    pub tx: Tx,
}

/// A run that is open for reading.
pub struct Run {
    meta: RunMeta,
    sealed: Sealed,
    blocks: Vec<BlockEntry>,
    /// Where each block begins: apart from the entries, so that a search of a market's blocks stays in a few cache lines.
    begins: Vec<Begin>,
    /// Markets, ascending, and the number of the first block of each: so that a search for one stays in the processor's
    /// caches, however many blocks there are.
    markets: Vec<(EntityId, u32)>,
    /// Every block before this one is dead.
    live_at: AtomicUsize,
    pco: FileDecompressor,
}

impl Run {
    /// Opens a run. **Errors:** [`IndexError::Corrupt`] for whatever is not what was written. **Cost:** reads the
    /// directory; blocks are verified when they are first used.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let Found { sealed, header: pco, footer, directory } = Sealed::open(path, &FAMILY, read_header)?;
        let blocks = directory::read(&directory, &footer)
            .map_err(|malformed| sealed.corrupt(footer.directory_offset, malformed))?;
        let meta = footer.meta(path, sealed.bytes());
        let begins = blocks.iter().map(|block| Begin { row: block.first_row, tx: block.tx_min }).collect();
        let mut markets: Vec<(EntityId, u32)> = blocks.iter().map(|block| block.market).zip(0..).collect();
        markets.dedup_by_key(|(market, _)| *market);
        Ok(Self { meta, sealed, blocks, begins, markets, live_at: AtomicUsize::new(0), pco })
    }

    /// What a manifest says of it.
    #[must_use]
    pub fn meta(&self) -> &RunMeta {
        &self.meta
    }

    /// Rows above these floors. **Cost:** a search per block.
    #[must_use]
    pub fn live_rows(&self, floors: &Floors) -> u64 {
        if floors.is_empty() {
            return self.meta.rows;
        }
        let live =
            |block: &BlockEntry| block.end_row() - floors.row(block.market).clamp(block.first_row, block.end_row());
        self.blocks.iter().map(|block| u64::from(live(block))).sum()
    }

    /// True when a block reaches above its market's floor. Floors only rise, so what was found dead is never looked at
    /// again. **Cost:** one block, mostly.
    pub(crate) fn has_live(&self, floor: impl Fn(EntityId) -> u32) -> bool {
        let from = self.live_at.load(Ordering::Relaxed);
        let live = |at: &usize| self.blocks[*at].end_row() > floor(self.blocks[*at].market);
        let found = (from..self.blocks.len()).find(live);
        self.live_at.store(found.unwrap_or(self.blocks.len()), Ordering::Relaxed);
        found.is_some()
    }

    /// Verifies every block and the content hash. Blocking; for backups and scrubbing.
    pub fn verify(&self) -> Result<(), IndexError> {
        (0..self.blocks.len()).try_for_each(|block| self.bytes(block).map(|_| ()))?;
        self.sealed.verify(self.meta.hash)
    }

    pub(crate) fn blocks(&self) -> &[BlockEntry] {
        &self.blocks
    }

    /// Numbers of this market's blocks, in row order.
    pub(crate) fn blocks_of(&self, market: EntityId) -> core::ops::Range<usize> {
        let begins = |at: usize| self.markets.get(at).map_or(self.blocks.len(), |(_, block)| *block as usize);
        match self.markets.binary_search_by_key(&market, |(market, _)| *market) {
            Ok(at) => begins(at)..begins(at + 1),
            Err(_) => 0..0,
        }
    }

    /// Where each of these blocks begins.
    pub(crate) fn begins(&self, blocks: core::ops::Range<usize>) -> &[Begin] {
        &self.begins[blocks]
    }

    /// The bytes of a block, verified.
    fn bytes(&self, block: usize) -> Result<&[u8], IndexError> {
        let entry = &self.blocks[block];
        let at = Stretch { offset: entry.offset, len: entry.len.into(), crc: entry.crc };
        self.sealed.block(block, at, |_| Ok(()))
    }

    /// Gives a verified block to `read`.
    pub(crate) fn with_block<R: ColumnRow, T>(
        &self,
        block: usize,
        read: impl FnOnce(&Block<'_>, &FileDecompressor) -> Result<T, Malformed>,
    ) -> Result<T, IndexError> {
        let bytes = self.bytes(block)?;
        let entry = &self.blocks[block];
        Block::new(bytes, entry.rows, R::SPECS.len())
            .and_then(|opened| read(&opened, &self.pco))
            .map_err(|malformed| self.sealed.corrupt(entry.offset, malformed))
    }

    fn key(&self, block: usize, column: usize, page: usize) -> PageKey {
        PageKey::new(self.meta.hash as u64, block, column, page)
    }

    /// One cell, through the cache.
    pub(crate) fn cell<R: ColumnRow>(
        &self,
        cache: &Cache,
        block: usize,
        column: usize,
        row: u32,
    ) -> Result<u64, IndexError> {
        let (page, within) = (row as usize / PAGE_ROWS, row as usize % PAGE_ROWS);
        Ok(match &*self.page::<R>(cache, block, column, page)? {
            Page::Constant(cell) => *cell,
            Page::Cells(cells) => cells[within],
            Page::Runs(_) | Page::Ids(_) => unreachable!("columns have keys of their own"),
        })
    }

    fn page<R: ColumnRow>(
        &self,
        cache: &Cache,
        block: usize,
        column: usize,
        page: usize,
    ) -> Result<Arc<Page>, IndexError> {
        cache.page(self.key(block, column, page), || {
            self.with_block::<R, _>(block, |opened, pco| {
                let mut opened_column = opened.column(pco, column)?;
                if let Some(cell) = opened_column.constant() {
                    return Ok(Page::Constant(cell));
                }
                let mut cells = vec![0; opened.page_rows(page)];
                opened_column.page(page, &mut cells)?;
                Ok(Page::Cells(cells))
            })
        })
    }

    /// The whole row, through the cache.
    pub(crate) fn row<R: ColumnRow>(&self, cache: &Cache, block: usize, row: u32) -> Result<R, IndexError> {
        let mut whole = R::empty(self.blocks[block].market);
        for column in 0..R::SPECS.len() {
            whole.set_cell(column, self.cell::<R>(cache, block, column, row)?);
        }
        Ok(whole)
    }

    /// How many rows of a block belong to `as_of`, through the cache.
    pub(crate) fn prefix<R: ColumnRow>(&self, cache: &Cache, block: usize, as_of: Tx) -> Result<u32, IndexError> {
        let page = self.with_block::<R, _>(block, |opened, _| opened.tx_page(|head| head.tx <= as_of))?;
        self.with_runs::<R, _>(cache, block, page, |runs| prefix(runs, page.end, as_of))
    }

    /// The transaction of a row of a block, through the cache.
    pub(crate) fn tx<R: ColumnRow>(&self, cache: &Cache, block: usize, row: u32) -> Result<Tx, IndexError> {
        let page = self.with_block::<R, _>(block, |opened, _| opened.tx_page(|head| head.first <= row))?;
        self.with_runs::<R, _>(cache, block, page, |runs| tx_of(runs, row))
    }

    fn with_runs<R: ColumnRow, T>(
        &self,
        cache: &Cache,
        block: usize,
        page: TxPage,
        read: impl FnOnce(&[TxRun]) -> T,
    ) -> Result<T, IndexError> {
        let page = cache.page(self.key(block, TXS, page.number), || {
            self.with_block::<R, _>(block, |opened, pco| Ok(Page::Runs(opened.runs_of(pco, page.number)?)))
        })?;
        let Page::Runs(runs) = &*page else { unreachable!("transactions have a key of their own") };
        Ok(read(runs))
    }

    /// The newest row of this id among the first `upto` rows of a block.
    pub(crate) fn find<R: ColumnRow>(
        &self,
        cache: &Cache,
        block: usize,
        id: u64,
        upto: u32,
    ) -> Result<Option<u32>, IndexError> {
        let entry = &self.blocks[block];
        if id < entry.zone.id_min || id > entry.zone.id_max {
            return Ok(None);
        }
        if entry.ascending {
            let page = self.with_block::<R, _>(block, |opened, _| page_of(opened, id))?;
            let Some(page) = page else { return Ok(None) };
            let (mut low, mut high) = ((page * PAGE_ROWS) as u32, upto.min(((page + 1) * PAGE_ROWS) as u32));
            let end = high;
            while low < high {
                let middle = low + (high - low) / 2;
                if self.cell::<R>(cache, block, ID, middle)? < id { low = middle + 1 } else { high = middle }
            }
            return Ok((low < end && self.cell::<R>(cache, block, ID, low)? == id).then_some(low));
        }
        let pages = self.with_block::<R, _>(block, |opened, _| pages_with(opened, id))?;
        if pages.len() > PAGES_SEARCHED_MAX {
            return self.find_in_index::<R>(cache, block, id, upto);
        }
        for page in pages.into_iter().rev() {
            let first = (page * PAGE_ROWS) as u32;
            let count = upto.saturating_sub(first).min(PAGE_ROWS as u32) as usize;
            let cells = self.page::<R>(cache, block, ID, page)?;
            let at = match &*cells {
                Page::Constant(cell) => (*cell == id && count > 0).then(|| count - 1),
                Page::Cells(cells) => cells[..count.min(cells.len())].iter().rposition(|&cell| cell == id),
                Page::Runs(_) | Page::Ids(_) => unreachable!("columns have keys of their own"),
            };
            if let Some(at) = at {
                return Ok(Some(first + at as u32));
            }
        }
        Ok(None)
    }

    /// The same for ids in no order at all.
    fn find_in_index<R: ColumnRow>(
        &self,
        cache: &Cache,
        block: usize,
        id: u64,
        upto: u32,
    ) -> Result<Option<u32>, IndexError> {
        let index = cache.page(self.key(block, IDS, 0), || {
            self.with_block::<R, _>(block, |opened, pco| {
                let mut ids = vec![0; opened.rows as usize];
                let mut column = opened.column(pco, ID)?;
                for (page, ids) in ids.chunks_mut(PAGE_ROWS).enumerate() {
                    column.page(page, ids)?;
                }
                let mut ids: Vec<_> = ids.into_iter().zip(0..).collect();
                ids.sort_unstable();
                Ok(Page::Ids(ids))
            })
        })?;
        let Page::Ids(ids) = &*index else { unreachable!("an id index has a key of its own") };
        let beyond = ids.partition_point(|&entry| entry < (id, upto));
        Ok(beyond.checked_sub(1).map(|at| ids[at]).filter(|entry| entry.0 == id).map(|entry| entry.1))
    }
}

/// The page of a block with ascending ids that would hold this one.
fn page_of(block: &Block<'_>, id: u64) -> Result<Option<usize>, Malformed> {
    let (mut low, mut high) = (0, block.pages());
    while low < high {
        let middle = low + (high - low) / 2;
        if block.zone(middle)?.id_max < id { low = middle + 1 } else { high = middle }
    }
    Ok((low < block.pages()).then_some(low))
}

/// The pages of a block whose ids may hold this one.
fn pages_with(block: &Block<'_>, id: u64) -> Result<Vec<usize>, Malformed> {
    let mut pages = Vec::new();
    for page in 0..block.pages() {
        let zone = block.zone(page)?;
        if (zone.id_min..=zone.id_max).contains(&id) {
            pages.push(page);
        }
    }
    Ok(pages)
}

/// **Shape:** magic 8, version u16, kind u8, bytes of pco's header u8, pco's header, zeros, CRC-32 u32.
pub(crate) fn write_header(kind: u8) -> [u8; HEADER_BYTES] {
    let mut pco = Vec::new();
    if let Err(error) = pco::wrapped::FileCompressor::default().write_header(&mut pco) {
        unreachable!("pco writes its header to memory: {error}");
    }
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(HEADER_MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10] = kind;
    header[11] = pco.len() as u8;
    header[12..12 + pco.len()].copy_from_slice(&pco);
    let crc = crc32fast::hash(&header[..HEADER_BYTES - 4]);
    header[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn read_header(header: &[u8; HEADER_BYTES]) -> Result<FileDecompressor, Malformed> {
    let malformed = |at, what, expected, found| Malformed { at, what, expected, found };
    if &header[..8] != HEADER_MAGIC {
        return Err(malformed(0, "a header's magic", 1, 0));
    }
    let (body, crc) = header.split_at(HEADER_BYTES - 4);
    let expected = crc32fast::hash(body);
    let found = u32::from_le_bytes([crc[0], crc[1], crc[2], crc[3]]);
    if expected != found {
        return Err(malformed(60, "a header's checksum", expected.into(), found.into()));
    }
    let mut input = Input::new(&body[8..]);
    // Which version it is the footer says.
    let (_version, kind, len) = (input.u16()?, input.u8()?, input.u8()?);
    input.expect("a header's kind", kind < 2, 1, kind.into())?;
    let pco = input.take(len.into())?;
    input.zeros(input.left())?;
    match FileDecompressor::new(pco) {
        Ok((decompressor, _)) => Ok(decompressor),
        Err(_) => Err(malformed(12, "pco's header", 1, 0)),
    }
}
