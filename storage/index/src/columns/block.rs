//! Up to 65,536 rows of one market as bytes: a header, a table of columns, zones of pages, columns.
//!
//! ```text
//!   0        16                16 + 32 C         + 32 P          + 4 P per paged column
//!   [ header | column table    | page zones      | page ends     | column bytes ...        ]
//!   C = the kind's columns and two more: `tx` and `first`, the run-length coded transactions (one page)
//! ```
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
    coded.push(encoder.encode(Shape::Rising, &txs, BLOCK_ROWS));
    coded.push(encoder.encode(Shape::Small, &firsts, BLOCK_ROWS));

    let start = out.len();
    out.extend_from_slice(&(draft.rows as u32).to_le_bytes());
    out.extend_from_slice(&(draft.runs.len() as u32).to_le_bytes());
    out.extend_from_slice(&(coded.len() as u16).to_le_bytes());
    out.extend_from_slice(&(PAGE_ROWS as u16).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let ends: usize = coded.iter().map(|column| column.page_ends.len() * 4).sum();
    let mut at = HEADER_BYTES + coded.len() * ENTRY_BYTES + zones.len() * ZONE_BYTES;
    let mut offset = at + ends;
    for column in &coded {
        let (kind, exponent, operand) = column.coding.fields();
        out.extend_from_slice(&[kind, exponent, 0, 0]);
        out.extend_from_slice(&column.meta_len.to_le_bytes());
        out.extend_from_slice(&(offset as u32).to_le_bytes());
        out.extend_from_slice(&(column.bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&operand.to_le_bytes());
        out.extend_from_slice(&(at as u32).to_le_bytes());
        out.extend_from_slice(&(column.page_ends.len() as u32).to_le_bytes());
        offset += column.bytes.len();
        at += column.page_ends.len() * 4;
    }
    for zone in &zones {
        for word in [zone.id_min, zone.id_max, zone.event_min as u64, zone.event_max as u64] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
    coded.iter().flat_map(|column| &column.page_ends).for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
    coded.iter().for_each(|column| out.extend_from_slice(&column.bytes));
    assert!(out.len() - start == offset);
    zones.into_iter().reduce(Zone::join).unwrap_or(Zone::of(&[], &[]))
}

/// A block's bytes, read with every bound checked.
pub(crate) struct Block<'a> {
    bytes: &'a [u8],
    pub rows: u32,
    tx_runs: u32,
    columns: u16,
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
        Ok(Self { bytes, rows, tx_runs, columns: count })
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
            _ if is_tx => 1,
            _ => self.pages(),
        };
        input.expect("a column's pages", ends as usize == pages, pages as u64, ends.into())?;
        let mut ends = Input::new(self.bytes);
        ends.take(ends_at as usize)?;
        let ends = ends.take(pages * 4)?;
        let mut bytes = Input::new(self.bytes);
        bytes.take(offset as usize)?;
        let mut bytes = Input::new(bytes.take(len as usize)?);
        let meta = bytes.take(meta_len as usize)?;
        let Some(decoder) = Decoder::new(pco, coding, meta) else {
            return Err(Malformed { at: offset.into(), what: "a column's metadata", expected: 0, found: 0 });
        };
        Ok(Column { decoder, pages: bytes.take(bytes.left())?, ends, offset: u64::from(offset) + u64::from(meta_len) })
    }

    /// The transactions, run-length coded.
    pub(crate) fn runs(&self, pco: &FileDecompressor) -> Result<Vec<TxRun>, Malformed> {
        let mut txs = vec![0; self.tx_runs as usize];
        let mut firsts = txs.clone();
        self.column(pco, usize::from(self.columns) - 2)?.page(0, &mut txs)?;
        self.column(pco, usize::from(self.columns) - 1)?.page(0, &mut firsts)?;
        let sound = txs.is_sorted_by(|a, b| a < b)
            && firsts.is_sorted_by(|a, b| a < b)
            && firsts[0] == 0
            && firsts.iter().all(|&first| first < self.rows.into());
        if !sound {
            return Err(Malformed { at: 0, what: "order of transactions", expected: 1, found: 0 });
        }
        Ok(txs.iter().zip(firsts).map(|(&tx, first)| TxRun { tx: Tx::from_bits(tx), first: first as u32 }).collect())
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
