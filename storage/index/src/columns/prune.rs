//! The horizon: which rows of a market are gone, and since when.
//!
//! ```text
//!   before `at`:  as_of(T) = every row up to T            from `at` on:  as_of(T) = rows >= floor up to T
//!                 after pruning: BelowHorizon { at }
//!
//!   floor_for(market, keep, budget) -> FloorAt           reads, in slices: where the log is led
//!   raise(floors, at)                                    sets, reads nothing: wherever the log is applied
//! ```
//! Invariants: pruning is a log entry with a transaction of its own, so every replica raises the same floor at the same
//! place, whatever it has sealed; a floor only rises; a reader below the horizon is refused, never given fewer rows.
//! Bytes go later: a run without rows above the floors is dropped whole, others lose theirs when they are merged, and
//! rows that were dropped before they were sealed are never written. Deliberately absent: deleting files, and when to
//! prune.

use std::ops::ControlFlow;
use std::sync::Arc;

use myelin_datom::{EntityId, Tx};

use super::market::Floor;
use super::read::{Filter, MarketView, Piece};
use super::scan::Scan;
use super::schema::ID;
use super::{ColumnRow, Columns, MarketIx, Run};
use crate::IndexError;

/// What is kept of a market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Everything.
    All,
    /// The last row.
    Latest,
    /// The last n rows.
    Last(u32),
    /// Rows of this transaction and later ones.
    Since(Tx),
}

/// A floor that a market can be raised to, and what has to be known of the rows below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloorAt {
    /// Rows below this number go.
    pub row: u32,
    /// The greatest id among them; of no meaning where ids are not declared to ascend.
    pub id: u64,
    /// The transaction of the last of them.
    pub gone: Tx,
    /// It is the floor that was asked for, and no lower one on the way.
    pub whole: bool,
}

/// What is there of a market, and what is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Rows that are there.
    pub rows: u32,
    /// Rows that were pruned: the number of the first that is there.
    pub dropped: u32,
    /// The transaction that pruned last; nothing before it can be asked for.
    pub horizon: Tx,
    /// The transaction of the last row that was pruned: of later ones every row is there.
    pub gone: Tx,
    /// Of the rows that are there, those that are in the newest part.
    pub newest: u32,
}

/// What pruning let go.
#[derive(Default)]
pub struct Pruned {
    /// Rows that are gone.
    pub rows: u64,
    /// Those of them that were frozen or sealed.
    pub sealed_rows: u64,
    /// Runs without a row above the floors, already taken out: their files can go when the last handle has gone.
    pub runs: Vec<Arc<Run>>,
}

/// The floors of the markets that were pruned, as of now: what [`merge`](super::merge) leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// By market, ascending.
    rows: Vec<(EntityId, u32)>,
}

impl Floors {
    /// The number of the market's first row that is there.
    pub(crate) fn row(&self, market: EntityId) -> u32 {
        self.rows.binary_search_by_key(&market, |floor| floor.0).map_or(0, |at| self.rows[at].1)
    }

    /// True when nothing was pruned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl<R: ColumnRow> Columns<R> {
    /// Raises the floors of one market or all, as transaction `at`: [`floor_for`](Self::floor_for) and
    /// [`raise`](Self::raise) in one step, however long that takes.
    ///
    /// **Panics** when `at` does not follow every transaction before it. **Errors:** a run that cannot be read; nothing
    /// has changed then.
    pub fn prune(&mut self, market: Option<MarketIx>, keep: Retention, at: Tx) -> Result<Pruned, IndexError> {
        let markets = market.map_or(0..self.markets.len() as u32, |ix| ix.0..ix.0 + 1).map(MarketIx);
        let mut floors = Vec::new();
        for ix in markets {
            floors.extend(self.floor_for(ix, keep, u32::MAX)?.map(|floor| (ix, floor)));
        }
        Ok(self.raise(floors, at))
    }

    /// The floor that a market is to be raised to; `None` when nothing would go. Changes nothing.
    ///
    /// At most `rows_max` ids are read one by one: where that does not reach, the floor is a lower one on the way, and a
    /// later call goes on. Whole blocks and parts whose ids ascend cost nothing. **Cost:** a search over the market's
    /// pieces and a page of transactions, beside those ids. **Errors:** a run that cannot be read.
    pub fn floor_for(&self, ix: MarketIx, keep: Retention, rows_max: u32) -> Result<Option<FloorAt>, IndexError> {
        let market = self.market(ix);
        let view = self.view_now(ix);
        let wanted = match keep {
            Retention::All => 0,
            Retention::Latest => market.next_row().saturating_sub(1),
            Retention::Last(rows) => market.next_row().saturating_sub(rows),
            Retention::Since(tx) => {
                tx.bits().checked_sub(1).map_or(Ok(0), |below| view.upto_at(Tx::from_bits(below)))?
            }
        };
        if wanted <= market.floor.row {
            return Ok(None);
        }
        // The greatest id below the floor, exactly: whoever applies this has sealed other parts and must agree.
        let (row, id) =
            if market.options.ascending_ids { view.greatest_id_below(wanted, rows_max)? } else { (wanted, 0) };
        if row <= market.floor.row {
            return Ok(None);
        }
        let gone = view.tx_of(row - 1)?.unwrap_or(market.floor.gone);
        Ok(Some(FloorAt { row, id: id.max(market.floor.id), gone, whole: row == wanted }))
    }

    /// Raises floors as transaction `at`. A floor that is not above the market's own is passed over, one above its rows
    /// counts as their end, one whose last row came later as that of `at`. **Cost:** a few loads a market and a run; nothing is read.
    ///
    /// **Panics** when `at` does not follow every transaction before it: applying in order is the caller's contract.
    pub fn raise(&mut self, floors: impl IntoIterator<Item = (MarketIx, FloorAt)>, at: Tx) -> Pruned {
        assert!(at > self.last_tx, "{at} does not follow {}", self.last_tx);
        self.last_tx = at;
        let mut pruned = Pruned::default();
        for (ix, to) in floors {
            let market = &mut self.markets[ix.0 as usize];
            let (before, row) = (market.floor.row, to.row.min(market.next_row()));
            if row <= before {
                continue;
            }
            pruned.rows += u64::from(row - before);
            pruned.sealed_rows += u64::from(row.min(market.first).saturating_sub(before));
            let gone = market.floor.gone.max(to.gone).min(at);
            market.floor = Floor { row, id: market.floor.id.max(to.id), horizon: at, gone };
        }
        pruned.runs = self.take_dead_runs();
        pruned
    }

    fn take_dead_runs(&mut self) -> Vec<Arc<Run>> {
        let Self { table, markets, runs, .. } = self;
        let floor = |market| table.get(market).map_or(0, |ix| markets[ix.0 as usize].floor.row);
        let (live, dead) = core::mem::take(runs).into_iter().partition(|run| run.has_live(floor));
        *runs = live;
        dead
    }

    /// What is there of a market.
    #[must_use]
    pub fn kept(&self, ix: MarketIx) -> Kept {
        let market = self.market(ix);
        let Floor { row, horizon, gone, .. } = market.floor;
        let (rows, newest) = (market.next_row() - row, market.next_row() - row.max(market.first));
        Kept { rows, dropped: row, horizon, gone, newest }
    }

    /// The floors as of now.
    #[must_use]
    pub fn floors(&self) -> Floors {
        let pruned = self.markets.iter().filter(|market| market.floor.row > 0);
        let mut rows: Vec<_> = pruned.map(|market| (market.id, market.floor.row)).collect();
        rows.sort_unstable_by_key(|floor| floor.0);
        Floors { rows }
    }
}

impl<R: ColumnRow> MarketView<'_, R> {
    /// The greatest id of the rows from the floor to before `row`, or to where `rows_max` ids were read one by one; and
    /// that row.
    fn greatest_id_below(&self, row: u32, rows_max: u32) -> Result<(u32, u64), IndexError> {
        let (mut greatest, mut left) = (0, rows_max);
        for piece in self.pieces() {
            let (from, upto) = (piece.first().max(self.floor), row.min(piece.first() + piece.rows()));
            if from >= upto {
                continue;
            }
            if let Some(id) = piece.greatest_id_before(self.cache, upto - piece.first())? {
                greatest = greatest.max(id);
                continue;
            }
            let end = upto.min(from.saturating_add(left));
            let mut scan = Scan::new(&[ID], false, Filter::default().event_time_ns, |batch| {
                greatest = batch.columns[0].iter().copied().fold(greatest, u64::max);
                ControlFlow::Continue(())
            });
            let _ = scan.piece(&piece, &(from..end))?;
            left -= end - from;
            if end < upto {
                return Ok((end, greatest));
            }
        }
        Ok((row, greatest))
    }
}

impl<R: ColumnRow> Piece<'_, R> {
    /// The greatest id of the first `rows` rows, where it can be told without reading them all. Rows of a block that were
    /// pruned before may be among them: their ids are no news.
    fn greatest_id_before(&self, cache: &super::Cache, rows: u32) -> Result<Option<u64>, IndexError> {
        match self {
            Self::Part { part, .. } => Ok(part.is_ascending().then(|| part.row(rows - 1).id())),
            Self::Block { run, block } => {
                let entry = &run.blocks()[*block];
                if rows == entry.rows {
                    return Ok(Some(entry.zone.id_max));
                }
                entry.ascending.then(|| run.cell::<R>(cache, *block, ID, rows - 1)).transpose()
            }
        }
    }
}
