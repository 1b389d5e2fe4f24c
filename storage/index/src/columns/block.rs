//! Up to 65,536 rows of one market as bytes: a header, a table of columns, zones of pages, columns.
//!
//! ```text
//!   0        16              16 + 32 C      + 32 P                   + 16 T
//!   [ header | column table  | page zones   | heads of transactions  | page ends and metadata per column | pages per column ]
//!   C = the kind's columns and two more: `tx` and `first`, the run-length coded transactions, in T pages of their own
//! ```
//! A head says which transaction a page of them begins with, and at which row: so a moment is found in one page, however
//! many transactions a block has. The last column lies first, and what is needed before its pages lies together: a read
//! touches few places, each of which is far away in a large database. Version 1 had all transactions in one page, no heads,
//! and a column's metadata before its pages.
//! Every byte is drawn in `README.md`. Invariants: offsets are from the block's start; the block's CRC stands in the
//! directory; a block that passed it is still read with every bound checked. Deliberately absent: market, row numbers
//! and the block's own zone, which stand in the directory.

use myelin_datom::Tx;
use pco::wrapped::FileDecompressor;

use super::ColumnRow;
use super::Shape;
use super::column::{Coded, Coding, Decoder, Encoder, PAGE_ROWS};
use super::part::TxRun;
use super::schema::{COLUMNS_MAX, EVENT_TIME, ID};
use super::wire::{Input, Malformed};

/// Rows of one block.
pub(crate) const BLOCK_ROWS: usize = 65_536;
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 32;
const ZONE_BYTES: usize = 32;
const HEAD_BYTES: usize = 16;
/// Transactions of a page: it decodes in a third of the time of a page of rows.
const PAGE_TXS: usize = 512;

/// Rows of one market on their way into a block: buffers that are reused from block to block.
#[derive(Default)]
pub(crate) struct Draft {
    pub rows: usize,
    pub columns: [Vec<u64>; COLUMNS_MAX],
    pub runs: Vec<TxRun>,
}

impl Draft {
    pub(crate) fn clear(&mut self) {
        self.rows = 0;
        self.columns.iter_mut().for_each(Vec::clear);
        self.runs.clear();
    }

    /// Notes that the next row belongs to `tx`.
    pub(crate) fn begin(&mut self, tx: Tx) {
        if self.runs.last().is_none_or(|run| run.tx != tx) {
            self.runs.push(TxRun { tx, first: self.rows as u32 });
        }
    }

    pub(crate) fn floats(&self, column: usize) -> &[f64] {
        bytemuck::cast_slice(&self.columns[column])
    }
}

/// Ids and event times of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    pub id_min: u64,
    pub id_max: u64,
    pub event_min: i64,
    pub event_max: i64,
}

impl Zone {
    pub(crate) fn of(ids: &[u64], events: &[u64]) -> Self {
        let mut zone = Self { id_min: u64::MAX, id_max: 0, event_min: i64::MAX, event_max: i64::MIN };
        for (&id, &event) in ids.iter().zip(events) {
            zone.id_min = zone.id_min.min(id);
            zone.id_max = zone.id_max.max(id);
            zone.event_min = zone.event_min.min(event as i64);
            zone.event_max = zone.event_max.max(event as i64);
        }
        zone
    }

    pub(crate) fn join(self, other: Self) -> Self {
        Self {
            id_min: self.id_min.min(other.id_min),
            id_max: self.id_max.max(other.id_max),
            event_min: self.event_min.min(other.event_min),
            event_max: self.event_max.max(other.event_max),
        }
    }
}

/// Writes a draft as a block at the end of `out`; gives the zone of all rows.
pub(crate) fn encode<R: ColumnRow>(draft: &Draft, encoder: &mut Encoder, out: &mut Vec<u8>) -> Zone {
    assert!(draft.rows > 0 && draft.rows <= BLOCK_ROWS);
    let (ids, events) = (&draft.columns[ID], &draft.columns[EVENT_TIME]);
    let zones: Vec<Zone> =
        ids.chunks(PAGE_ROWS).zip(events.chunks(PAGE_ROWS)).map(|(ids, events)| Zone::of(ids, events)).collect();
    let mut coded: Vec<Coded> = R::SPECS
        .iter()
        .zip(&draft.columns)
        .map(|(spec, cells)| {
            assert!(cells.len() == draft.rows);
            encoder.encode(spec.shape, cells, PAGE_ROWS)
        })
        .collect();
    let txs: Vec<u64> = draft.runs.iter().map(|run| run.tx.bits()).collect();
    let firsts: Vec<u64> = draft.runs.iter().map(|run| run.first.into()).collect();
    coded.push(encoder.encode(Shape::Rising, &txs, PAGE_TXS));
    coded.push(encoder.encode(Shape::Small, &firsts, PAGE_TXS));
    let heads = || draft.runs.iter().step_by(PAGE_TXS);

    let start = out.len();
    out.extend_from_slice(&(draft.rows as u32).to_le_bytes());
    out.extend_from_slice(&(draft.runs.len() as u32).to_le_bytes());
    out.extend_from_slice(&(coded.len() as u16).to_le_bytes());
    out.extend_from_slice(&(PAGE_ROWS as u16).to_le_bytes());
    out.extend_from_slice(&(PAGE_TXS as u16).to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    let fronts_at = HEADER_BYTES + coded.len() * ENTRY_BYTES + zones.len() * ZONE_BYTES + heads().count() * HEAD_BYTES;
    let front_len = |column: &Coded| column.page_ends.len() * 4 + column.meta().len();
    let mut end = fronts_at + coded.iter().map(|column| front_len(column) + column.pages().len()).sum::<usize>();
    let mut front_end = fronts_at + coded.iter().map(front_len).sum::<usize>();
    // From the last one back, so that the transactions, which every read needs, lie where the header does.
    for column in &coded {
        let (kind, exponent, operand) = column.coding.fields();
        (end, front_end) = (end - column.pages().len(), front_end - front_len(column));
        out.extend_from_slice(&[kind, exponent, 0, 0]);
        out.extend_from_slice(&(column.meta().len() as u32).to_le_bytes());
        out.extend_from_slice(&(end as u32).to_le_bytes());
        out.extend_from_slice(&(column.pages().len() as u32).to_le_bytes());
        out.extend_from_slice(&operand.to_le_bytes());
        out.extend_from_slice(&(front_end as u32).to_le_bytes());
        out.extend_from_slice(&(column.page_ends.len() as u32).to_le_bytes());
    }
    for zone in &zones {
        for word in [zone.id_min, zone.id_max, zone.event_min as u64, zone.event_max as u64] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
    for head in heads() {
        out.extend_from_slice(&head.tx.bits().to_le_bytes());
        out.extend_from_slice(&u64::from(head.first).to_le_bytes());
    }
    assert!(out.len() - start == fronts_at);
    for column in coded.iter().rev() {
        column.page_ends.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
        out.extend_from_slice(column.meta());
    }
    coded.iter().rev().for_each(|column| out.extend_from_slice(column.pages()));
    zones.into_iter().reduce(Zone::join).unwrap_or(Zone::of(&[], &[]))
}

/// A block's bytes, read with every bound checked.
pub(crate) struct Block<'a> {
    bytes: &'a [u8],
    pub rows: u32,
    tx_runs: u32,
    columns: u16,
    /// Transactions of a page.
    page_txs: usize,
}

/// A page of a block's transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TxPage {
    pub number: usize,
    /// The row behind its last one.
    pub end: u32,
}

impl<'a> Block<'a> {
    /// Reads the header. `columns` are the kind's, without the two of the transactions.
    pub(crate) fn new(bytes: &'a [u8], rows: u32, columns: usize) -> Result<Self, Malformed> {
        let mut input = Input::new(bytes);
        let (found, tx_runs, count, page_rows) = (input.u32()?, input.u32()?, input.u16()?, input.u16()?);
        input.expect("a block's rows", found == rows, rows.into(), found.into())?;
        input.expect("a block's columns", usize::from(count) == columns + 2, columns as u64 + 2, count.into())?;
        input.expect("rows of a page", usize::from(page_rows) == PAGE_ROWS, PAGE_ROWS as u64, page_rows.into())?;
        input.expect("transactions of a block", (1..=rows).contains(&tx_runs), rows.into(), tx_runs.into())?;
        let page_txs = match usize::from(input.u16()?) {
            0 => BLOCK_ROWS,
            PAGE_TXS => PAGE_TXS,
            other => {
                return Err(Malformed {
                    at: input.at(),
                    what: "transactions of a page",
                    expected: PAGE_TXS as u64,
                    found: other as u64,
                });
            }
        };
        input.zeros(2)?;
        Ok(Self { bytes, rows, tx_runs, columns: count, page_txs })
    }

    pub(crate) fn pages(&self) -> usize {
        (self.rows as usize).div_ceil(PAGE_ROWS)
    }

    /// Rows of a page.
    pub(crate) fn page_rows(&self, page: usize) -> usize {
        (self.rows as usize - page * PAGE_ROWS).min(PAGE_ROWS)
    }

    pub(crate) fn zone(&self, page: usize) -> Result<Zone, Malformed> {
        let at = HEADER_BYTES + usize::from(self.columns) * ENTRY_BYTES + page * ZONE_BYTES;
        let mut input = Input::new(self.bytes);
        input.take(at)?;
        Ok(Zone {
            id_min: input.u64()?,
            id_max: input.u64()?,
            event_min: input.u64()? as i64,
            event_max: input.u64()? as i64,
        })
    }

    /// Opens a column; its pages follow with [`Column::page`].
    pub(crate) fn column(&self, pco: &FileDecompressor, column: usize) -> Result<Column<'a>, Malformed> {
        let mut input = Input::new(self.bytes);
        input.take(HEADER_BYTES + column * ENTRY_BYTES)?;
        let (kind, exponent, zero) = (input.u8()?, input.u8()?, input.u16()?);
        let (meta_len, offset, len) = (input.u32()?, input.u32()?, input.u32()?);
        let (operand, ends_at, ends) = (input.u64()?, input.u32()?, input.u32()?);
        let coding = Coding::from_fields(kind, exponent, operand).filter(|_| zero == 0);
        let Some(coding) = coding else {
            return Err(Malformed { at: input.at(), what: "a column's coding", expected: 3, found: kind.into() });
        };
        let is_tx = column + 2 >= usize::from(self.columns);
        let pages = match coding {
            Coding::Constant { .. } => 0,
            _ if is_tx => self.tx_pages(),
            _ => self.pages(),
        };
        input.expect("a column's pages", ends as usize == pages, pages as u64, ends.into())?;
        let mut front = Input::new(self.bytes);
        front.take(ends_at as usize)?;
        let ends = front.take(pages * 4)?;
        let mut bytes = Input::new(self.bytes);
        bytes.take(offset as usize)?;
        let mut bytes = Input::new(bytes.take(len as usize)?);
        // Version 1 had the metadata before the pages.
        let before = if self.page_txs == BLOCK_ROWS { meta_len } else { 0 };
        let meta = if before > 0 { bytes.take(before as usize)? } else { front.take(meta_len as usize)? };
        let Some(decoder) = Decoder::new(pco, coding, meta) else {
            return Err(Malformed { at: ends_at.into(), what: "a column's metadata", expected: 0, found: 0 });
        };
        Ok(Column { decoder, pages: bytes.take(bytes.left())?, ends, offset: u64::from(offset) + u64::from(before) })
    }

    fn tx_pages(&self) -> usize {
        (self.tx_runs as usize).div_ceil(self.page_txs)
    }

    /// Where a page of transactions begins.
    fn head(&self, page: usize) -> Result<TxRun, Malformed> {
        let zones_at = HEADER_BYTES + usize::from(self.columns) * ENTRY_BYTES;
        let mut input = Input::new(self.bytes);
        input.take(zones_at + self.pages() * ZONE_BYTES + page * HEAD_BYTES)?;
        let head = TxRun { tx: Tx::from_bits(input.u64()?), first: input.u32()? };
        input.zeros(4)?;
        let within = head.first < self.rows && (head.first > 0 || page == 0);
        input.expect("where a page of transactions begins", within, self.rows.into(), head.first.into())?;
        Ok(head)
    }

    /// The last page of transactions that `has_begun`, or the first.
    pub(crate) fn tx_page(&self, has_begun: impl Fn(TxRun) -> bool) -> Result<TxPage, Malformed> {
        let (mut low, mut high) = (1, self.tx_pages());
        while low < high {
            let middle = low + (high - low) / 2;
            if has_begun(self.head(middle)?) { low = middle + 1 } else { high = middle }
        }
        let end = if low == self.tx_pages() { self.rows } else { self.head(low)?.first };
        Ok(TxPage { number: low - 1, end })
    }

    /// All transactions, run-length coded.
    pub(crate) fn runs(&self, pco: &FileDecompressor) -> Result<Vec<TxRun>, Malformed> {
        let mut runs = Vec::with_capacity(self.tx_runs as usize);
        self.read_runs(pco, 0..self.tx_pages(), &mut runs)?;
        Ok(runs)
    }

    /// The transactions of a page.
    pub(crate) fn runs_of(&self, pco: &FileDecompressor, page: usize) -> Result<Vec<TxRun>, Malformed> {
        let mut runs = Vec::with_capacity(self.page_txs.min(self.tx_runs as usize));
        self.read_runs(pco, page..page + 1, &mut runs)?;
        Ok(runs)
    }

    /// Reads pages of transactions, in order: ascending over all of them, each as its head says.
    fn read_runs(
        &self,
        pco: &FileDecompressor,
        pages: core::ops::Range<usize>,
        runs: &mut Vec<TxRun>,
    ) -> Result<(), Malformed> {
        let malformed = |what, expected, found| Malformed { at: 0, what, expected, found };
        let mut tx_column = self.column(pco, usize::from(self.columns) - 2)?;
        let mut first_column = self.column(pco, usize::from(self.columns) - 1)?;
        let (mut txs, mut firsts) = (Vec::new(), Vec::new());
        for page in pages {
            let count = (self.tx_runs as usize - page * self.page_txs).min(self.page_txs);
            txs.resize(count, 0);
            firsts.resize(count, 0);
            tx_column.page(page, &mut txs)?;
            first_column.page(page, &mut firsts)?;
            let sound = txs.is_sorted_by(|a, b| a < b)
                && firsts.is_sorted_by(|a, b| a < b)
                && firsts[count - 1] < self.rows.into()
                && runs.last().is_none_or(|last| last.tx.bits() < txs[0] && u64::from(last.first) < firsts[0]);
            if !sound {
                return Err(malformed("order of transactions", 1, 0));
            }
            let head = if page == 0 { TxRun { tx: Tx::from_bits(txs[0]), first: 0 } } else { self.head(page)? };
            if (head.tx.bits(), u64::from(head.first)) != (txs[0], firsts[0]) {
                return Err(malformed("where a page of transactions begins", head.first.into(), firsts[0]));
            }
            // What a reader of this page takes for its end.
            let next = if page + 1 < self.tx_pages() { Some(self.head(page + 1)?) } else { None };
            if next.is_some_and(|next| next.tx.bits() <= txs[count - 1] || u64::from(next.first) <= firsts[count - 1]) {
                return Err(malformed("order of transactions", txs[count - 1], firsts[count - 1]));
            }
            runs.extend(
                txs.iter().zip(&firsts).map(|(&tx, &first)| TxRun { tx: Tx::from_bits(tx), first: first as u32 }),
            );
        }
        Ok(())
    }
}

/// One column of a block.
pub(crate) struct Column<'a> {
    decoder: Decoder,
    pages: &'a [u8],
    ends: &'a [u8],
    offset: u64,
}

impl Column<'_> {
    /// The cell of a column that has the same in every row.
    pub(crate) fn constant(&self) -> Option<u64> {
        if let Decoder::Constant(cell) = self.decoder { Some(cell) } else { None }
    }

    /// Decodes a page. **Shape:** `cells` is as long as the page has rows.
    pub(crate) fn page(&mut self, page: usize, cells: &mut [u64]) -> Result<(), Malformed> {
        if let Some(cell) = self.constant() {
            cells.fill(cell);
            return Ok(());
        }
        let mut input = Input::new(self.ends);
        let begin = if page == 0 { 0 } else { input.take((page - 1) * 4).and_then(|_| input.u32())? };
        let end = input.u32()?;
        let at = self.offset + u64::from(begin);
        let malformed = Malformed { at, what: "a page's bytes", expected: cells.len() as u64, found: 0 };
        let bytes = self.pages.get(begin as usize..end as usize).ok_or(malformed)?;
        self.decoder.page(bytes, cells).ok_or(malformed)
    }
}

#[cfg(test)]
mod tests;
