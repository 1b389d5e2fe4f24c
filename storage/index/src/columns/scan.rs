//! Column-wise scans: only the columns asked for, a page at a time, past pages that cannot hold what is asked for.
//!
//! ```text
//!   piece -> page: row range? -> event zone? -> decode columns -> [decode event time, keep what matches] -> Batch
//! ```
//! Invariants: a visitor sees exactly the rows of the filter, in order, in batches of at most one page; buffers are reused
//! from page to page. Deliberately absent: the cache: a scan would push everything else out.

use std::ops::{ControlFlow, Range, RangeInclusive};

use super::column::PAGE_ROWS;
use super::part::TxRun;
use super::read::{Filter, MarketView, Piece};
use super::schema::EVENT_TIME;
use super::wire::Malformed;
use super::{ColumnRow, Run};
use crate::IndexError;

/// Some rows, column by column.
pub(super) struct Batch<'b> {
    /// Row numbers.
    pub numbers: &'b [u32],
    /// Cells of the columns asked for, in that order.
    pub columns: &'b [Vec<u64>],
    /// Bits of the transactions, if asked for.
    pub txs: &'b [u64],
}

/// What a scan is about, and its buffers.
pub(super) struct Scan<'c, V> {
    columns: &'c [usize],
    with_txs: bool,
    events: RangeInclusive<i64>,
    visit: V,
    numbers: Vec<u32>,
    cells: Vec<Vec<u64>>,
    event_cells: Vec<u64>,
    txs: Vec<u64>,
}

impl<R: ColumnRow> MarketView<'_, R> {
    /// Row numbers that the filter lets through, but for event time.
    pub(super) fn range(&self, filter: &Filter) -> Result<Range<u32>, IndexError> {
        let since = if filter.since == myelin_datom::Tx::ZERO { self.floor } else { self.upto_at(filter.since)? };
        Ok(self.floor.max(since).max(filter.from_row)..self.upto)
    }

    /// Visits batches of the filter's rows.
    pub(super) fn scan<V: FnMut(&Batch<'_>) -> ControlFlow<()>>(
        &self,
        filter: &Filter,
        columns: &[usize],
        with_txs: bool,
        visit: V,
    ) -> Result<(), IndexError> {
        self.scan_within(filter, columns, with_txs, &mut { u64::MAX }, visit).map(|_| ())
    }

    /// The same in steps: whole pieces until `left` is spent. Gives the row to go on from, or the view's end.
    pub(super) fn scan_within<V: FnMut(&Batch<'_>) -> ControlFlow<()>>(
        &self,
        filter: &Filter,
        columns: &[usize],
        with_txs: bool,
        left: &mut u64,
        visit: V,
    ) -> Result<u32, IndexError> {
        let range = self.range(filter)?;
        let mut scan = Scan::new(columns, with_txs, filter.event_time_ns.clone(), visit);
        for piece in self.pieces_in(range.clone()) {
            if *left == 0 {
                return Ok(range.start.max(piece.first()));
            }
            *left = left.saturating_sub(piece.cost(&range, filter));
            if scan.piece(&piece, &range)?.is_break() {
                break;
            }
        }
        Ok(self.end_row())
    }
}

impl<'c, V: FnMut(&Batch<'_>) -> ControlFlow<()>> Scan<'c, V> {
    pub(super) fn new(columns: &'c [usize], with_txs: bool, events: RangeInclusive<i64>, visit: V) -> Self {
        let cells = columns.iter().map(|_| Vec::new()).collect();
        let (numbers, event_cells, txs) = (Vec::new(), Vec::new(), Vec::new());
        Self { columns, with_txs, events, visit, numbers, cells, event_cells, txs }
    }

    /// Visits the rows of one piece that lie in `range`.
    pub(super) fn piece<R: ColumnRow>(
        &mut self,
        piece: &Piece<'_, R>,
        range: &Range<u32>,
    ) -> Result<ControlFlow<()>, IndexError> {
        let first = piece.first();
        let from = range.start.saturating_sub(first);
        let upto = range.end.saturating_sub(first).min(piece.rows());
        if from >= upto {
            return Ok(ControlFlow::Continue(()));
        }
        match piece {
            Piece::Block { run, block } => self.block::<R>(run, *block, from..upto),
            Piece::Part { part, .. } => {
                let mut slices = part.slices(from, upto).peekable();
                while let Some(&(start, _)) = slices.peek() {
                    self.clear();
                    for (_, rows) in slices.by_ref().take(PAGE_ROWS / super::part::CHUNK_ROWS) {
                        let columns = self.columns.iter().zip(&mut self.cells);
                        columns.for_each(|(&column, cells)| R::cells(rows, column, cells));
                        R::cells(rows, EVENT_TIME, &mut self.event_cells);
                    }
                    let end = start + self.event_cells.len() as u32;
                    self.numbers.extend(first + start..first + end);
                    if self.with_txs {
                        expand(part.runs(), start..end, &mut self.txs);
                    }
                    if (self.every_event() || self.keep_matching()) && self.give().is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    fn block<R: ColumnRow>(
        &mut self,
        run: &Run,
        block: usize,
        rows: Range<u32>,
    ) -> Result<ControlFlow<()>, IndexError> {
        let entry = &run.blocks()[block];
        if entry.zone.event_max < *self.events.start() || entry.zone.event_min > *self.events.end() {
            return Ok(ControlFlow::Continue(()));
        }
        run.with_block::<R, _>(block, |opened, pco| {
            let mut columns = self.columns.iter().map(|&at| opened.column(pco, at)).collect::<Result<Vec<_>, _>>()?;
            let mut event = None;
            let runs = if self.with_txs { opened.runs(pco)? } else { Vec::new() };
            let pages = rows.start as usize / PAGE_ROWS..(rows.end as usize).div_ceil(PAGE_ROWS);
            for page in pages {
                let zone = opened.zone(page)?;
                if zone.event_max < *self.events.start() || zone.event_min > *self.events.end() {
                    continue;
                }
                let all_match = self.events.contains(&zone.event_min) && self.events.contains(&zone.event_max);
                let (base, len) = ((page * PAGE_ROWS) as u32, opened.page_rows(page));
                let (from, upto) = (rows.start.max(base) - base, (rows.end - base).min(len as u32));
                self.clear();
                for (column, cells) in columns.iter_mut().zip(&mut self.cells) {
                    page_of(column, page, len, from..upto, cells)?;
                }
                if !all_match {
                    if event.is_none() {
                        event = Some(opened.column(pco, EVENT_TIME)?);
                    }
                    if let Some(event) = &mut event {
                        page_of(event, page, len, from..upto, &mut self.event_cells)?;
                    }
                }
                let first = entry.first_row + base;
                self.numbers.extend(first + from..first + upto);
                if self.with_txs {
                    expand(&runs, base + from..base + upto, &mut self.txs);
                }
                if (all_match || self.keep_matching()) && self.give().is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn clear(&mut self) {
        self.numbers.clear();
        self.cells.iter_mut().for_each(Vec::clear);
        self.event_cells.clear();
        self.txs.clear();
    }

    fn every_event(&self) -> bool {
        (*self.events.start(), *self.events.end()) == (i64::MIN, i64::MAX)
    }

    /// Drops the rows whose event time does not match; false when none is left.
    fn keep_matching(&mut self) -> bool {
        let mut kept = 0;
        for at in 0..self.event_cells.len() {
            if self.events.contains(&(self.event_cells[at] as i64)) {
                self.numbers[kept] = self.numbers[at];
                self.cells.iter_mut().for_each(|cells| cells[kept] = cells[at]);
                if self.with_txs {
                    self.txs[kept] = self.txs[at];
                }
                kept += 1;
            }
        }
        self.numbers.truncate(kept);
        self.cells.iter_mut().for_each(|cells| cells.truncate(kept));
        self.txs.truncate(kept);
        kept > 0
    }

    fn give(&mut self) -> ControlFlow<()> {
        (self.visit)(&Batch { numbers: &self.numbers, columns: &self.cells, txs: &self.txs })
    }
}

/// Decodes a page of `len` rows and keeps `rows` of it.
fn page_of(
    column: &mut super::block::Column<'_>,
    page: usize,
    len: usize,
    rows: Range<u32>,
    cells: &mut Vec<u64>,
) -> Result<(), Malformed> {
    cells.resize(len, 0);
    column.page(page, cells)?;
    cells.truncate(rows.end as usize);
    cells.drain(..rows.start as usize);
    Ok(())
}

/// The transaction of every row of `rows`.
fn expand(runs: &[TxRun], rows: Range<u32>, txs: &mut Vec<u64>) {
    let mut at = runs.partition_point(|run| run.first <= rows.start) - 1;
    let mut row = rows.start;
    while row < rows.end {
        let end = runs.get(at + 1).map_or(rows.end, |next| next.first.min(rows.end));
        txs.resize(txs.len() + (end - row) as usize, runs[at].tx.bits());
        (row, at) = (end, at + 1);
    }
}
