//! Point reads and row reads: one market as of one transaction.
//!
//! ```text
//!   rows   floor ................................ upto          upto: rows of transactions up to `as_of`
//!          [ block ][ block ] runs [ frozen ][ newest part >    floor: rows below were pruned
//! ```
//! Invariants: rows stand in `tx` order over all pieces, so `as_of` is one number, found once when the view is made; what
//! a view answers does not depend on where its rows are, so sealing and merging change no answer. Deliberately absent:
//! several markets at once (callers merge partials), and anything that waits.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use myelin_datom::{EntityId, Tx};

use super::cache::Cache;
use super::part::{Part, prefix, tx_of};
use super::{ColumnRow, Columns, Frozen, MarketIx, Run, row_entity};
use crate::IndexError;

/// Which rows of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Rows of later transactions only.
    pub since: Tx,
    /// Rows from this number on: where an earlier answer stopped.
    pub from_row: u32,
    /// The exchange's time, ends included. **Units:** nanoseconds.
    pub event_time_ns: RangeInclusive<i64>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { since: Tx::ZERO, from_row: 0, event_time_ns: i64::MIN..=i64::MAX }
    }
}

/// A row, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found<R> {
    /// Its number within the market, from 0.
    pub number: u32,
    /// The transaction that brought it.
    pub tx: Tx,
    /// Its place within that transaction; 0 for quotes, whose places are not stored.
    pub n: u32,
    /// The row.
    pub row: R,
}

impl<R: ColumnRow> Found<R> {
    /// A stored row, as it is shown.
    fn shown(number: u32, tx: Tx, mut row: R) -> Self {
        let n = row.place();
        row.set_place(0);
        Self { number, tx, n, row }
    }

    /// Its entity id.
    #[must_use]
    pub fn entity(&self) -> EntityId {
        row_entity(self.row.market(), R::KIND, self.number)
    }
}

/// One market as of one transaction.
pub struct MarketView<'a, R> {
    pub(super) market: EntityId,
    pub(super) floor: u32,
    pub(super) upto: u32,
    pub(super) runs: &'a [Arc<Run>],
    pub(super) frozen: &'a [Arc<Frozen<R>>],
    pub(super) newest: Option<(u32, &'a Part<R>)>,
    /// Where the last row is, when finding the moment found it: most reads go there.
    pub(super) last: Option<Piece<'a, R>>,
    pub(super) cache: &'a Cache,
}

/// Rows of one market that stand together.
#[derive(Clone, Copy)]
pub(super) enum Piece<'a, R> {
    Block { run: &'a Run, block: usize },
    Part { first: u32, part: &'a Part<R> },
}

impl<'a, R: ColumnRow> Piece<'a, R> {
    pub(super) fn first(&self) -> u32 {
        match self {
            Self::Block { run, block } => run.blocks()[*block].first_row,
            Self::Part { first, .. } => *first,
        }
    }

    pub(super) fn rows(&self) -> u32 {
        match self {
            Self::Block { run, block } => run.blocks()[*block].rows,
            Self::Part { part, .. } => part.rows(),
        }
    }

    /// Rows of transactions up to `as_of`.
    fn prefix(&self, cache: &Cache, as_of: Tx) -> Result<u32, IndexError> {
        match self {
            Self::Part { part, .. } => Ok(prefix(part.runs(), part.rows(), as_of)),
            Self::Block { run, block } => {
                let entry = &run.blocks()[*block];
                if entry.tx_max <= as_of {
                    return Ok(entry.rows);
                }
                if entry.tx_min > as_of {
                    return Ok(0);
                }
                run.prefix::<R>(cache, *block, as_of)
            }
        }
    }

    fn tx(&self, cache: &Cache, within: u32) -> Result<Tx, IndexError> {
        match self {
            Self::Part { part, .. } => Ok(tx_of(part.runs(), within)),
            Self::Block { run, block } => run.tx::<R>(cache, *block, within),
        }
    }

    fn found(&self, cache: &Cache, within: u32) -> Result<Found<R>, IndexError> {
        let number = self.first() + within;
        match self {
            Self::Part { part, .. } => Ok(Found::shown(number, tx_of(part.runs(), within), *part.row(within))),
            Self::Block { run, block } => {
                Ok(Found::shown(number, run.tx::<R>(cache, *block, within)?, run.row(cache, *block, within)?))
            }
        }
    }
}

impl<R: ColumnRow> Columns<R> {
    /// One market as of a transaction. **Errors:** [`IndexError::BelowHorizon`].
    pub fn view(&self, market: MarketIx, as_of: Tx) -> Result<MarketView<'_, R>, IndexError> {
        let floor = self.market(market).floor;
        if as_of < floor.horizon {
            return Err(IndexError::BelowHorizon { horizon: floor.horizon });
        }
        let view = self.view_now(market);
        if as_of < self.last_tx() { view.up_to(as_of) } else { Ok(view) }
    }

    /// One market as of a transaction, for whoever goes on from a row and took those before it already: whether the market
    /// was pruned since does not matter as long as that row was not.
    ///
    /// **Errors:** [`IndexError::BelowHorizon`], with the last transaction that is gone, when it was.
    pub fn view_from(&self, market: MarketIx, row: u32, as_of: Tx) -> Result<MarketView<'_, R>, IndexError> {
        let floor = self.market(market).floor;
        if row < floor.row {
            return Err(IndexError::BelowHorizon { horizon: floor.gone });
        }
        let view = self.view_now(market);
        if as_of < self.last_tx() { view.up_to(as_of) } else { Ok(view) }
    }

    /// The number of a market's first row of later transactions, or of the first that is there.
    pub fn row_after(&self, market: MarketIx, tx: Tx) -> Result<u32, IndexError> {
        self.view_now(market).upto_at(tx)
    }

    /// The number of a market's first row of later transactions than `as_of`, or of the first that is there, where memory alone
    /// can say it; nothing where a sealed block would have to be read.
    ///
    /// **Errors:** [`IndexError::BelowHorizon`].
    pub fn end_in_memory(&self, market: MarketIx, as_of: Tx) -> Result<Option<u32>, IndexError> {
        let floor = self.market(market).floor;
        if as_of < floor.horizon {
            return Err(IndexError::BelowHorizon { horizon: floor.horizon });
        }
        let view = self.view_now(market);
        let end = if as_of < self.last_tx() { view.upto_in_memory(as_of) } else { Some(view.upto) };
        Ok(end.map(|end| end.max(floor.row)))
    }

    /// One market with all its rows.
    pub(super) fn view_now(&self, market: MarketIx) -> MarketView<'_, R> {
        let market = self.market(market);
        let newest = (market.part.rows() > 0).then_some((market.first, &market.part));
        MarketView {
            market: market.id,
            floor: market.floor.row,
            upto: market.next_row(),
            runs: &self.runs,
            frozen: &self.frozen,
            newest,
            last: newest.map(|(first, part)| Piece::Part { first, part }),
            cache: &self.cache,
        }
    }

    /// The newest row of an id, whatever transaction brought it.
    pub(super) fn newest_of_id(&self, market: MarketIx, id: u64) -> Result<Option<R>, IndexError> {
        let view = self.view_now(market);
        // Most repeats are recent: look without the way through the transactions.
        if let Some((first, part)) = view.newest
            && let Some(row) = part.find(id, part.rows())
        {
            return Ok((first + row >= view.floor).then(|| {
                let mut stored = *part.row(row);
                stored.set_place(0);
                stored
            }));
        }
        Ok(view.row_by_id(id)?.map(|found| found.row))
    }
}

impl<'a, R: ColumnRow> MarketView<'a, R> {
    pub(super) fn pieces(&self) -> impl DoubleEndedIterator<Item = Piece<'a, R>> + use<'a, R> {
        let market = self.market;
        let blocks =
            self.runs.iter().flat_map(move |run| run.blocks_of(market).map(move |block| Piece::Block { run, block }));
        blocks.chain(self.parts())
    }

    /// Those that are not sealed yet.
    fn parts(&self) -> impl DoubleEndedIterator<Item = Piece<'a, R>> + use<'a, R> {
        let market = self.market;
        let parts = self.frozen.iter().filter_map(move |frozen| {
            frozen.market(market).map(|market| Piece::Part { first: market.first, part: &market.part })
        });
        parts.chain(self.newest.map(|(first, part)| Piece::Part { first, part }))
    }

    /// The same without the rows of later transactions.
    pub(super) fn up_to(mut self, as_of: Tx) -> Result<Self, IndexError> {
        (self.upto, self.last) = self.end_at(as_of)?;
        Ok(self)
    }

    /// Row numbers of transactions up to `as_of`.
    pub(super) fn upto_at(&self, as_of: Tx) -> Result<u32, IndexError> {
        self.end_at(as_of).map(|(upto, _)| upto)
    }

    /// The same, and the piece where the last of them is.
    fn end_at(&self, as_of: Tx) -> Result<(u32, Option<Piece<'a, R>>), IndexError> {
        for piece in self.begun_by(as_of) {
            let prefix = piece.prefix(self.cache, as_of)?;
            if prefix > 0 {
                return Ok((self.upto.min(piece.first() + prefix), Some(piece)));
            }
        }
        Ok((self.floor, None))
    }

    /// The same where memory alone can say it; nothing where the transactions of a sealed block would have to be read.
    fn upto_in_memory(&self, as_of: Tx) -> Option<u32> {
        for piece in self.begun_by(as_of) {
            let prefix = match piece {
                Piece::Part { part, .. } => prefix(part.runs(), part.rows(), as_of),
                Piece::Block { run, block } => {
                    let entry = &run.blocks()[block];
                    (entry.tx_max <= as_of).then_some(entry.rows)?
                }
            };
            if prefix > 0 {
                return Some(self.upto.min(piece.first() + prefix));
            }
        }
        Some(self.floor)
    }

    /// The pieces that begin at a moment or before it, the last one first. Of each run no more than one: transactions ascend
    /// over parts, runs and blocks, and what began later is passed over without a look at each.
    fn begun_by(&self, as_of: Tx) -> impl Iterator<Item = Piece<'a, R>> + use<'a, R> {
        let market = self.market;
        let begun = &self.runs[..self.runs.partition_point(|run| run.meta().tx_min <= as_of)];
        let blocks = begun.iter().rev().filter_map(move |run| {
            let of = run.blocks_of(market);
            let begun = run.begins(of.clone()).partition_point(|begin| begin.tx <= as_of);
            (begun > 0).then(|| Piece::Block { run, block: of.start + begun - 1 })
        });
        self.parts().rev().chain(blocks)
    }

    /// The block where a row is, if it is in a run: the last one that begins at or before it.
    fn block_of(&self, number: u32) -> Option<Piece<'a, R>> {
        let mut runs = self.runs;
        let mut found = None;
        while !runs.is_empty() {
            let middle = runs.len() / 2;
            // Not every run has rows of every market.
            let known =
                (middle..runs.len()).map(|at| (at, runs[at].blocks_of(self.market))).find(|(_, of)| !of.is_empty());
            match known {
                Some((at, of)) if runs[at].begins(of.clone())[0].row <= number => {
                    found = Some((&runs[at], of));
                    runs = &runs[at + 1..];
                }
                _ => runs = &runs[..middle],
            }
        }
        let (run, of) = found?;
        let begun = run.begins(of.clone()).partition_point(|begin| begin.row <= number);
        Some(Piece::Block { run, block: of.start + begun - 1 })
    }

    /// The market.
    #[must_use]
    pub fn market(&self) -> EntityId {
        self.market
    }

    /// Rows.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.upto.saturating_sub(self.floor)
    }

    /// Number of the first row that is there.
    #[must_use]
    pub fn first_row(&self) -> u32 {
        self.floor
    }

    /// Number of the row after the last.
    #[must_use]
    pub fn end_row(&self) -> u32 {
        self.upto.max(self.floor)
    }

    /// True when this row and all later ones stand in the newest part: reading them decodes nothing.
    #[must_use]
    pub fn is_in_memory(&self, row: u32) -> bool {
        self.newest.is_some_and(|(first, _)| first <= row)
    }

    /// The row that came last.
    pub fn latest(&self) -> Result<Option<Found<R>>, IndexError> {
        if self.count() == 0 { Ok(None) } else { self.row(self.upto - 1) }
    }

    fn locate(&self, number: u32) -> Option<(Piece<'a, R>, u32)> {
        if number < self.floor || number >= self.upto {
            return None;
        }
        let last = self.last.filter(|piece| piece.first() <= number);
        let part = || self.parts().rev().find(|part| part.first() <= number);
        let piece = last.or_else(part).or_else(|| self.block_of(number))?;
        Some((piece, number - piece.first())).filter(|(piece, within)| *within < piece.rows())
    }

    /// A row by its number.
    pub fn row(&self, number: u32) -> Result<Option<Found<R>>, IndexError> {
        self.locate(number).map(|(piece, within)| piece.found(self.cache, within)).transpose()
    }

    /// The transaction that brought a row.
    pub fn tx_of(&self, number: u32) -> Result<Option<Tx>, IndexError> {
        self.locate(number).map(|(piece, within)| piece.tx(self.cache, within)).transpose()
    }

    /// The bits of one attribute of a row. **Shape:** columns as in [`schema`](super::schema).
    pub fn cell(&self, number: u32, column: usize) -> Result<Option<u64>, IndexError> {
        self.locate(number)
            .map(|(piece, within)| match piece {
                Piece::Part { part, .. } => Ok(part.row(within).cell(column)),
                Piece::Block { run, block } => run.cell::<R>(self.cache, block, column, within),
            })
            .transpose()
    }

    /// The newest row of an id; an id of 0 names none.
    pub fn row_by_id(&self, id: u64) -> Result<Option<Found<R>>, IndexError> {
        if id == 0 {
            return Ok(None);
        }
        for piece in self.pieces().rev() {
            let Some(within) = self.newest_in(&piece, id)? else { continue };
            let there = piece.first() + within >= self.floor;
            return if there { piece.found(self.cache, within).map(Some) } else { Ok(None) };
        }
        Ok(None)
    }

    /// The newest row of an id in a piece.
    fn newest_in(&self, piece: &Piece<'a, R>, id: u64) -> Result<Option<u32>, IndexError> {
        let Some(visible) = self.upto.checked_sub(piece.first()).filter(|&visible| visible > 0) else {
            return Ok(None);
        };
        let visible = visible.min(piece.rows());
        match piece {
            Piece::Part { part, .. } => Ok(part.find(id, visible)),
            Piece::Block { run, block } => run.find::<R>(self.cache, *block, id, visible),
        }
    }

    /// Visits the rows of an id, the newest first, until the visitor breaks or what comes next is gone. **Shape:** every row
    /// but the oldest is a correction.
    pub(super) fn versions(&self, id: u64, mut visit: impl FnMut(&R) -> ControlFlow<()>) -> Result<(), IndexError> {
        for piece in self.pieces().rev() {
            let mut next = self.newest_in(&piece, id)?;
            while let Some(within) = next {
                if piece.first() + within < self.floor || visit(&piece.found(self.cache, within)?.row).is_break() {
                    return Ok(());
                }
                next = match piece {
                    Piece::Part { part, .. } => part.older(within),
                    Piece::Block { run, block } => run.find::<R>(self.cache, block, id, within)?,
                };
            }
        }
        Ok(())
    }

    /// Visits rows in order until the visitor breaks.
    pub fn rows(&self, filter: &Filter, visit: impl FnMut(Found<R>) -> ControlFlow<()>) -> Result<(), IndexError> {
        self.rows_within(filter, &mut { u64::MAX }, visit).map(|_| ())
    }

    /// The same, whole pieces of the market until `left` rows were looked at, however few of them the filter lets through.
    /// Gives the row to go on from; the view's end when there is none, or when the visitor broke.
    pub fn rows_within(
        &self,
        filter: &Filter,
        left: &mut u64,
        mut visit: impl FnMut(Found<R>) -> ControlFlow<()>,
    ) -> Result<u32, IndexError> {
        let columns: Vec<usize> = (0..R::SPECS.len()).collect();
        let mut row = R::empty(self.market);
        self.scan_within(filter, &columns, true, left, |batch| {
            for at in 0..batch.numbers.len() {
                columns.iter().for_each(|&column| row.set_cell(column, batch.columns[column][at]));
                visit(Found::shown(batch.numbers[at], Tx::from_bits(batch.txs[at]), row))?;
            }
            ControlFlow::Continue(())
        })
    }
}
