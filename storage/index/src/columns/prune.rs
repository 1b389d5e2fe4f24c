//! The horizon: which rows of a market are gone, and since when.
//!
//! ```text
//!   before `at`:  as_of(T) = every row up to T            from `at` on:  as_of(T) = rows >= floor up to T
//!                 after pruning: BelowHorizon { at }
//! ```
//! Invariants: pruning is a log entry with a transaction of its own, so every replica raises the same floor at the same
//! place, whatever it has sealed; a floor only rises; a reader below the horizon is refused, never given fewer rows.
//! Bytes go later: a run without rows above the floors is dropped whole, others lose theirs when they are merged.
//! Deliberately absent: deleting files, and when to prune.

use std::ops::ControlFlow;
use std::sync::Arc;

use myelin_datom::{EntityId, Tx};

use super::market::Floor;
use super::read::Filter;
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

/// What pruning let go.
#[derive(Default)]
pub struct Pruned {
    /// Rows that are gone.
    pub rows: u64,
    /// Runs without a row above the floors, already taken out: their files can go when the last handle has gone.
    pub runs: Vec<Arc<Run>>,
}

/// The floors of the markets that were pruned, as of now: what [`merge`](super::merge) leaves out.
#[derive(Clone, Debug, Default)]
pub struct Floors {
    /// By market, ascending.
    rows: Vec<(EntityId, u32)>,
}

impl Floors {
    /// The number of the market's first row that is there.
    pub(crate) fn row(&self, market: EntityId) -> u32 {
        self.rows.binary_search_by_key(&market, |floor| floor.0).map_or(0, |at| self.rows[at].1)
    }
}

impl<R: ColumnRow> Columns<R> {
    /// Raises the floors of one market or all, as transaction `at`.
    ///
    /// **Panics** when `at` does not follow every transaction before it. **Errors:** a run that cannot be read where the
    /// greatest pruned id has to be known; nothing has changed then.
    pub fn prune(&mut self, market: Option<MarketIx>, keep: Retention, at: Tx) -> Result<Pruned, IndexError> {
        assert!(at > self.last_tx, "{at} does not follow {}", self.last_tx);
        let markets = market.map_or(0..self.markets.len() as u32, |ix| ix.0..ix.0 + 1);
        let floors = markets.clone().map(|ix| self.raised(MarketIx(ix), keep, at)).collect::<Result<Vec<_>, _>>()?;
        self.last_tx = at;
        let mut pruned = Pruned::default();
        for (ix, floor) in markets.zip(floors) {
            let market = &mut self.markets[ix as usize];
            pruned.rows += u64::from(floor.row - market.floor.row);
            market.floor = floor;
        }
        let floors = self.floors();
        let live = |run: &Run| run.blocks().iter().any(|block| block.end_row() > floors.row(block.market));
        (self.runs, pruned.runs) = core::mem::take(&mut self.runs).into_iter().partition(|run| live(run));
        Ok(pruned)
    }

    /// The floor that a market gets.
    fn raised(&self, ix: MarketIx, keep: Retention, at: Tx) -> Result<Floor, IndexError> {
        let market = self.market(ix);
        let view = self.view_now(ix);
        let row = match keep {
            Retention::All => 0,
            Retention::Latest => market.next_row().saturating_sub(1),
            Retention::Last(rows) => market.next_row().saturating_sub(rows),
            Retention::Since(tx) => {
                tx.bits().checked_sub(1).map_or(Ok(0), |below| view.upto_at(Tx::from_bits(below)))?
            }
        };
        if row <= market.floor.row {
            return Ok(market.floor);
        }
        // The greatest id below the floor, exactly: replicas have sealed different parts and must agree.
        let mut id = market.floor.id;
        if market.options.ascending_ids {
            let mut scan = Scan::new(&[ID], false, Filter::default().event_time_ns, |batch| {
                id = batch.columns[0].iter().copied().fold(id, u64::max);
                ControlFlow::Continue(())
            });
            for piece in view.pieces() {
                let _ = scan.piece(&piece, &(market.floor.row..row))?;
            }
        }
        Ok(Floor { row, id, horizon: at })
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
