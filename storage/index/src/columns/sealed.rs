//! What a read takes along to another thread: the runs and the frozen parts as they stand, shared by count.
//!
//! ```text
//!   data core   Columns --sealed()--> Sealed ----------------> reader thread: view(market, rows, as_of), page faults, preads
//!               Columns --newest_from(row, as_of)--> the rows that are in no part that is shared
//! ```
//! A row keeps its number wherever it moves, so a read is a number that grows: below [`Columns::sealed_end`] the other
//! thread reads, above it the data core, and what is frozen in between is below it the next time. Invariants: a sealed
//! set never changes; rows that were pruned after it was taken are in it still; a read that comes back for rows that are
//! gone meanwhile is refused. Deliberately absent: which rows a read needs, and how many at a time.

use std::ops::Range;
use std::sync::Arc;

use myelin_datom::{EntityId, Tx};

use super::cache::Cache;
use super::part::prefix;
use super::read::{MarketView, Piece};
use super::{ColumnRow, Columns, Frozen, MarketIx, Run};
use crate::IndexError;

/// The rows of all markets that are not in the newest part, for another thread.
pub struct Sealed<R> {
    runs: Vec<Arc<Run>>,
    frozen: Vec<Arc<Frozen<R>>>,
    last_tx: Tx,
}

impl<R: ColumnRow> Columns<R> {
    /// Everything but the newest part. **Cost:** a count per run.
    #[must_use]
    pub fn sealed(&self) -> Sealed<R> {
        Sealed { runs: self.runs.clone(), frozen: self.frozen.clone(), last_tx: self.last_tx }
    }

    /// The number of a market's first row that is in the newest part, or of the next one that will be.
    #[must_use]
    pub fn sealed_end(&self, market: MarketIx) -> u32 {
        self.market(market).first
    }

    /// The rows of the newest part from `row` on, as of a transaction. Reads memory only. **Panics** when that row is not
    /// in the newest part: the caller asked [`Columns::sealed_end`].
    ///
    /// **Errors:** [`IndexError::BelowHorizon`] when it was pruned.
    pub fn newest_from(&self, market: MarketIx, row: u32, as_of: Tx) -> Result<MarketView<'_, R>, IndexError> {
        let market = self.market(market);
        assert!(row >= market.first, "row {row} is sealed");
        if row < market.floor.row {
            return Err(IndexError::BelowHorizon { horizon: market.floor.horizon });
        }
        let upto = market.first + prefix(market.part.runs(), market.part.rows(), as_of);
        let newest = (market.part.rows() > 0).then_some((market.first, &market.part));
        let last = newest.map(|(first, part)| Piece::Part { first, part });
        Ok(MarketView { market: market.id, floor: row, upto, runs: &[], frozen: &[], newest, last, cache: &self.cache })
    }
}

impl<R: ColumnRow> Sealed<R> {
    /// These rows of a market as of a transaction, through the thread's own cache. **Errors:** a run that cannot be read.
    pub fn view<'a>(
        &'a self,
        cache: &'a Cache,
        market: EntityId,
        rows: Range<u32>,
        as_of: Tx,
    ) -> Result<MarketView<'a, R>, IndexError> {
        let Self { runs, frozen, last_tx } = self;
        let Range { start: floor, end: upto } = rows;
        let view = MarketView { market, floor, upto, runs, frozen, newest: None, last: None, cache };
        if as_of < *last_tx { view.up_to(as_of) } else { Ok(view) }
    }
}

impl<R: ColumnRow> MarketView<'_, R> {
    /// The same without the rows from this number on.
    #[must_use]
    pub fn before(mut self, row: u32) -> Self {
        self.upto = self.upto.min(row);
        self
    }
}
